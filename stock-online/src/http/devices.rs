//! Known devices: browsers in which an account's owner has logged in before, recognized by a signed
//! cookie.
//!
//! Wrong passwords from elsewhere delay logins to an account, but not from its owner's devices,
//! because each device has its own count of attempts. The cookie gives no access. A thief of the
//! cookie may guess passwords at the rate of one device.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use stock_domain::user::Email;

use crate::app::App;

const NAME: &str = "device";
/// Browsers send the cookie with the account forms only.
const PATH: &str = "/account";
const SECONDS: u32 = 365 * 86_400;

fn text(email: &Email, nonce: &str) -> String {
    format!("device {} {nonce}", email.as_str())
}

/// The device that a request comes from, if the owner of this email address has logged in there
/// before.
pub(crate) fn known(app: &App, headers: &HeaderMap, email: &Email) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    let values = pairs.filter_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='));
    let mut known = values.filter_map(|value| {
        let (nonce, signature) = value.split_once('.')?;
        let text = text(email, nonce);
        app.people
            .tokens
            .has_signed(&text, signature)
            .then_some(text)
    });
    known.next()
}

/// Makes a browser a known device from now on.
pub(crate) fn remember(app: &App, response: &mut Response, email: &Email) {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let Ok(signature) = app.people.tokens.sign(&text(email, &nonce)) else {
        return;
    };
    let secure = if app.config.http.public_tls {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{NAME}={nonce}.{signature}; Path={PATH}; Max-Age={SECONDS}; HttpOnly; SameSite=Strict{secure}"
    );
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}
