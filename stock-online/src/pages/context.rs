//! The context of a page: its reader, its language, and its headers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use fluent_templates::fluent_bundle::FluentValue;
use serde::de::DeserializeOwned;
use stock_common::clock::rfc3339;
use stock_domain::order::OrderStatus;
use stock_domain::user::User;
use stock_mysql::people::users;

use super::api::Api;
use super::assets;
use super::shop::BuyState;
use super::texts::{COOKIE, Lang, grouped};
use crate::app::App;
use crate::http::auth::{AnyCaller, Caller, Role};
use crate::http::code::Code;
use crate::http::origin::Origin;
use crate::http::problem::Problem;

/// Pages may load files of this site, and nothing from anywhere else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Time limits for reading the reader's own data: usually, and when MySQL was silent a moment ago.
const OWN_MAX: Duration = Duration::from_millis(1_500);
const OWN_MAX_SILENT: Duration = Duration::from_millis(200);
/// How long a chosen language is kept.
const LANG_SECONDS: u32 = 365 * 86_400;

/// The data that every page has.
pub struct PageContext {
    /// The state that handlers share.
    pub app: Arc<App>,
    /// Its language.
    pub lang: Lang,
    /// The reader, if they have logged in.
    pub user: Option<User>,
    /// The reader as a caller of the interface.
    pub caller: Option<Caller>,
    /// Its path, without its query.
    pub path: String,
    /// Its query, without a choice of language.
    pub query: String,
    /// The path to which a login leads back.
    pub back: String,
    origin: Origin,
    api: Api,
}

impl FromRequestParts<Arc<App>> for PageContext {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        if let Some(chosen) = choice(parts, app) {
            return Err(chosen);
        }
        Self::read(parts, app)
            .await
            .map_err(IntoResponse::into_response)
    }
}

/// `?lang=ko` is remembered in a cookie, and the browser is redirected to the page without it.
fn choice(parts: &Parts, app: &App) -> Option<Response> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(parts.uri.query()?).ok()?;
    let lang = pairs.iter().find(|(name, _)| name == COOKIE)?;
    let lang = Lang::parse(&lang.1)?;
    let rest: Vec<_> = pairs.iter().filter(|(name, _)| name != COOKIE).collect();
    let rest = serde_urlencoded::to_string(rest).ok()?;
    let path = parts.uri.path();
    let target = if rest.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{rest}")
    };
    let secure = if app.config.http.public_tls {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{COOKIE}={}; Path=/; Max-Age={LANG_SECONDS}; SameSite=Lax{secure}",
        lang.as_str()
    );
    Some(([(header::SET_COOKIE, cookie)], Redirect::to(&target)).into_response())
}

fn problem_texts(lang: Lang) -> String {
    let text = |code: &Code| {
        let text = lang.find(&format!("problem-{}", code.as_str()))?;
        Some((code.as_str(), text))
    };
    let texts: BTreeMap<_, _> = Code::ALL.iter().filter_map(text).collect();
    let json = serde_json::to_string(&texts).unwrap_or_default();
    // Escaped for an attribute here and once, because every page contains it.
    json.replace('&', "&#38;")
        .replace('<', "&#60;")
        .replace('>', "&#62;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

impl PageContext {
    async fn read(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, app).await?;
        let origin = Origin::from_request_parts(parts, app).await?;
        let api = parts.extensions.get::<Api>().cloned();
        let user = match caller {
            Some(caller) => {
                let read = async {
                    let found = users::find(&app.pool, caller.user).await?;
                    Ok::<_, sqlx::Error>(found.map(|(user, _)| user))
                };
                app.people.users.get(caller.user, read).await?
            }
            None => None,
        };
        Ok(Self {
            app: Arc::clone(app),
            lang: Lang::of(&parts.headers),
            // The session of a deleted user has no caller.
            caller: caller.filter(|_| user.is_some()),
            user,
            back: parts
                .uri
                .path_and_query()
                .map_or("/", |whole| whole.as_str())
                .to_owned(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            origin,
            api: api.ok_or_else(|| Problem::of(Code::Internal))?,
        })
    }

    /// The interface's answer to the reader.
    ///
    /// # Errors
    /// The interface's problem.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.api.get(path, self.caller, self.origin.clone()).await
    }

    /// The reader as a buyer, so that admins see their own objects and not everybody's.
    #[must_use]
    pub fn buyer(&self) -> Option<Caller> {
        self.caller.map(|caller| Caller {
            role: Role::User,
            store_id: None,
            ..caller
        })
    }

    /// Reads the reader's own data, if MySQL answers soon enough. Otherwise it is `None`, because a
    /// page without the data is better than no page.
    ///
    /// # Errors
    /// Problems other than MySQL not answering.
    pub async fn own<T>(
        &self,
        read: impl Future<Output = Result<T, Problem>>,
    ) -> Result<Option<T>, Problem> {
        let silence = &self.app.silence;
        if self.app.health.database().is_away() {
            return Ok(None);
        }
        let limit = match silence.is_now() {
            true => OWN_MAX_SILENT,
            false => OWN_MAX,
        };
        match tokio::time::timeout(limit, read).await {
            Ok(Ok(own)) => Ok(Some(own)),
            Ok(Err(problem)) if problem.code == Code::DatabaseUnavailable => Ok(None),
            Ok(Err(problem)) => Err(problem),
            Err(_elapsed) => {
                silence.note();
                Ok(None)
            }
        }
    }

    /// The interface's answer to an anonymous client, or a kept one while MySQL does not answer.
    ///
    /// # Errors
    /// The interface's problem.
    pub async fn get_public<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let read = self.api.read(path, None, self.origin.clone());
        let body = self.app.live.lists.get(path.to_owned(), read).await?;
        serde_json::from_slice(&body).map_err(|error| Problem::internal(&error))
    }

    /// The interface's answer to the reader as a buyer.
    ///
    /// # Errors
    /// The interface's problem.
    pub async fn get_own<T: DeserializeOwned>(&self, path: impl AsRef<str>) -> Result<T, Problem> {
        self.api
            .get(path.as_ref(), self.buyer(), self.origin.clone())
            .await
    }

    /// Whether the reader is an admin.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.caller.is_some_and(|caller| caller.is_admin())
    }

    /// The reader, who must have logged in; others are sent to the login page.
    ///
    /// # Errors
    /// A redirect to the login page, which leads back here.
    #[expect(
        clippy::result_large_err,
        reason = "a response is what a handler answers"
    )]
    pub fn reader(&self) -> Result<Caller, Response> {
        self.caller
            .ok_or_else(|| Redirect::to(&self.login_url()).into_response())
    }

    /// The reader, who must be an admin.
    ///
    /// # Errors
    /// A redirect to the login page, which leads back here, or 403.
    #[expect(
        clippy::result_large_err,
        reason = "a response is what a handler answers"
    )]
    pub fn admin(&self) -> Result<Caller, Response> {
        let caller = self.reader()?;
        if caller.is_admin() {
            Ok(caller)
        } else {
            Err(Problem::of(Code::Forbidden).into_response())
        }
    }

    /// The login page, which leads back here.
    #[must_use]
    pub fn login_url(&self) -> String {
        let next = serde_urlencoded::to_string([("next", &self.back)]).unwrap_or_default();
        format!("/login?{next}")
    }

    /// The URL of this page in another language.
    #[must_use]
    pub fn lang_url(&self, lang: &Lang) -> String {
        let and = if self.query.is_empty() { "" } else { "&" };
        format!(
            "{}?{}{and}{COOKIE}={}",
            self.path,
            self.query,
            lang.as_str()
        )
    }

    /// The text of an id, in the page's language.
    #[must_use]
    pub fn t(&self, id: &str) -> String {
        self.lang.text(id)
    }

    /// The text of a status, a kind or a state, by the prefix and the name of its id.
    #[must_use]
    pub fn of(&self, prefix: &str, name: impl Display) -> String {
        self.t(&format!("{prefix}{name}"))
    }

    /// A text with a number, in the plural form that the number takes.
    #[must_use]
    pub fn count(&self, id: &str, count: &i64) -> String {
        self.lang.filled(id, "count", *count)
    }

    /// A text with a value filled in.
    pub fn with(
        &self,
        id: &str,
        name: &'static str,
        value: impl Into<FluentValue<'static>>,
    ) -> String {
        self.lang.filled(id, name, value)
    }

    /// An amount of money.
    #[must_use]
    pub fn money(&self, amount: &i64) -> String {
        self.lang.money(*amount)
    }

    /// A time in the shop's zone.
    #[must_use]
    pub fn time(&self, unix_ms: &i64) -> String {
        self.lang.time(*unix_ms, self.app.config.tz())
    }

    /// A time in RFC 3339.
    #[must_use]
    pub fn rfc3339(&self, unix_ms: &i64) -> String {
        rfc3339(*unix_ms)
    }

    /// A time that the interface gave, in the shop's zone.
    #[must_use]
    pub fn time_of(&self, rfc3339: &str) -> String {
        match chrono::DateTime::parse_from_rfc3339(rfc3339) {
            Ok(time) => self.time(&time.timestamp_millis()),
            Err(_) => rfc3339.to_owned(),
        }
    }

    /// A number in groups of digits.
    #[must_use]
    pub fn number(&self, number: &i64) -> String {
        grouped(*number)
    }

    /// The meanings of problems, by code, for the page's scripts, escaped for an attribute. A
    /// problem without one is shown by its own detail.
    #[must_use]
    pub fn problem_texts(&self) -> &'static str {
        static ENGLISH: LazyLock<String> = LazyLock::new(|| problem_texts(Lang::En));
        static KOREAN: LazyLock<String> = LazyLock::new(|| problem_texts(Lang::Ko));
        match self.lang {
            Lang::En => &ENGLISH,
            Lang::Ko => &KOREAN,
        }
    }

    /// The languages that can be chosen.
    #[must_use]
    pub const fn languages(&self) -> [Lang; 2] {
        Lang::ALL
    }

    /// The states of a button that buys.
    #[must_use]
    pub const fn buy_states(&self) -> [BuyState; 6] {
        BuyState::ALL
    }

    /// Every status of an order.
    #[must_use]
    pub fn order_statuses(&self) -> Vec<&'static str> {
        OrderStatus::ALL
            .iter()
            .map(|status| status.as_str())
            .collect()
    }

    /// The URL of an asset.
    #[must_use]
    pub fn asset(&self, name: &str) -> String {
        assets::url(name)
    }

    /// Whether the page lies at a path of the navigation, or below it.
    #[must_use]
    pub fn is_at(&self, path: &str) -> bool {
        self.path == path || path.len() > 1 && self.path.starts_with(&format!("{path}/"))
    }
}

/// The response for a page.
#[must_use]
pub fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, POLICY, template)
}

/// The response for a page, with a status.
#[must_use]
pub fn page_as(status: StatusCode, template: &impl Template) -> Response {
    page_with(status, POLICY, template)
}

/// The response for a page, with a status and a content policy.
#[must_use]
pub fn page_with(status: StatusCode, policy: &'static str, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => html_response(status, HeaderValue::from_static(policy), html),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// The response for HTML.
#[must_use]
pub fn html_response(status: StatusCode, policy: HeaderValue, html: String) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (header::CONTENT_SECURITY_POLICY, policy),
        (
            header::VARY,
            HeaderValue::from_static("Accept-Language, Cookie"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("same-origin"),
        ),
    ];
    (status, headers, html).into_response()
}
