//! A browser per test: one driver for the whole binary, a fresh profile for each test.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::support::{self, PATIENCE, Service, Shop, at_end, folder, until};

/// How a page is, for the message of a test that waited in vain.
const PAGE_STATE: &str = "return [location.href, document.readyState, document.hidden, \
    {...document.documentElement.dataset}, \
    performance.getEntriesByType('resource').map((entry) => \
        [entry.name, entry.responseStatus, entry.startTime, entry.responseStart, entry.duration])]";

pub(crate) const PASSWORD: &str = "open sesame, please";

/// The address of the driver, which ends with the tests.
fn driver() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver: `make browser` installs it");
        at_end(&format!("kill -9 {} 2>/dev/null", child.id()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        // Reads the rest of the driver's output, so that the driver never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        format!("http://127.0.0.1:{}", port.unwrap())
    })
}

/// The settings of a browser.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) lang: &'static str,
    pub(crate) is_dark: bool,
    pub(crate) size: (u32, u32),
    pub(crate) has_scripts: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            lang: "en",
            is_dark: false,
            size: (1280, 1000),
            has_scripts: true,
        }
    }
}

pub(crate) const PHONE: (u32, u32) = (412, 900);

/// A browser that looks at one service.
pub(crate) struct Browser {
    pub(crate) page: Client,
    origin: String,
}

impl Browser {
    pub(crate) async fn open(service: &Service) -> Self {
        Self::open_as(service, Setting::default()).await
    }

    pub(crate) async fn open_as(service: &Service, setting: Setting) -> Self {
        let profile = folder("browser");
        let (width, height) = setting.size;
        let scheme = if setting.is_dark { 0 } else { 1 };
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--user-data-dir={}", profile.display()),
            format!("--window-size={width},{height}"),
            format!("--blink-settings=preferredColorScheme={scheme}"),
        ];
        // Chromium refuses to run its sandbox as root, as in a container.
        if rustix::process::geteuid().is_root() {
            arguments.push("--no-sandbox".to_owned());
        }
        let scripts = if setting.has_scripts { 1 } else { 2 };
        let mut options = json!({
            "args": arguments,
            "prefs": {
                "intl.accept_languages": setting.lang,
                "profile.managed_default_content_settings.javascript": scripts,
            },
        });
        if setting.size == PHONE {
            let (width, height) = setting.size;
            options["mobileEmulation"] =
                json!({ "deviceMetrics": { "width": width, "height": height, "pixelRatio": 1.0 } });
        }
        let Value::Object(capabilities) = json!({
            "goog:chromeOptions": options,
            // A question to the person stays open until the test answers it.
            "unhandledPromptBehavior": "ignore",
        }) else {
            panic!("capabilities are an object");
        };
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(driver())
            .await
            .unwrap();
        Self {
            page,
            origin: format!("http://{}", service.client.address),
        }
    }

    /// Closes the browser. The browser of a failed test ends with the driver.
    pub(crate) async fn close(self) {
        self.page.close().await.unwrap();
    }

    /// Shows a page, and waits until its scripts have begun.
    pub(crate) async fn go(&self, path: &str) {
        self.page
            .goto(&format!("{}{path}", self.origin))
            .await
            .unwrap();
        self.ready().await;
    }

    /// Waits until the page's scripts listen.
    pub(crate) async fn ready(&self) {
        self.until_true(
            "the scripts have begun",
            "return 'ready' in document.documentElement.dataset",
        )
        .await;
    }

    /// Waits until the stream of live updates has begun.
    pub(crate) async fn live(&self) {
        self.until_true(
            "the stream has begun",
            "return 'live' in document.documentElement.dataset",
        )
        .await;
    }

    pub(crate) async fn run(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits for a script to return true; a page that is just being replaced is asked again. When
    /// it never does, the test says what the script returned last and how the page is.
    pub(crate) async fn until_true(&self, what: &str, script: &str) {
        let started = Instant::now();
        loop {
            let answer = self.page.execute(script, Vec::new()).await;
            if matches!(answer, Ok(Value::Bool(true))) {
                return;
            }
            if started.elapsed() >= PATIENCE {
                let page = self.page.execute(PAGE_STATE, Vec::new()).await;
                panic!("did not happen: {what}; last answer {answer:?}; page {page:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the text is on the page.
    pub(crate) async fn until_says(&self, text: &str) {
        let script = format!("return document.body.innerText.includes({})", json!(text));
        self.until_true(text, &script).await;
    }

    /// Waits until the page's path begins with `path`.
    pub(crate) async fn until_at(&self, path: &str) {
        let script = format!(
            "return location.pathname.startsWith({}) && document.readyState === 'complete'",
            json!(path)
        );
        self.until_true(path, &script).await;
        self.ready().await;
    }

    pub(crate) async fn find(&self, selector: &str) -> Element {
        let found = self.page.find(Locator::Css(selector)).await;
        found.unwrap_or_else(|error| panic!("{selector}: {error}"))
    }

    pub(crate) async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.unwrap()
    }

    pub(crate) async fn has(&self, selector: &str) -> bool {
        self.page.find(Locator::Css(selector)).await.is_ok()
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        element
            .click()
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Types into a field, in place of what is there.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let field = self.find(selector).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Confirms the question that the page asks.
    pub(crate) async fn agree(&self) {
        until("a question is asked", || async {
            self.page.accept_alert().await.is_ok()
        })
        .await;
    }

    pub(crate) async fn log_in(&self, email: &str) {
        self.go("/login").await;
        self.fill("#email", email).await;
        self.fill("#password", PASSWORD).await;
        self.click("main button.primary").await;
        self.until_says(email).await;
        self.ready().await;
    }

    /// Saves a screenshot of the page.
    pub(crate) async fn keep(&self, name: &str) {
        let picture = self.page.screenshot().await.unwrap();
        std::fs::write(target("screenshots").join(format!("{name}.png")), picture).unwrap();
    }
}

/// A folder below `target`, made if it is not there.
pub(crate) fn target(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target")
        .join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Signs a user up through the API, and returns the id.
pub(crate) async fn sign_up(client: &support::Client, email: &str) -> u64 {
    let body = json!({ "email": email, "password": PASSWORD, "confirmPassword": PASSWORD });
    let made = client.post("/api/auth/signup").json(&body).send().await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.body["id"].as_u64().unwrap()
}

/// Signs a user up and makes them an admin.
pub(crate) async fn make_admin(shop: &Shop, client: &support::Client, email: &str) {
    sign_up(client, email).await;
    sqlx::query("UPDATE users SET role = 'admin' WHERE email = ?")
        .bind(email)
        .execute(&shop.pool)
        .await
        .unwrap();
}
