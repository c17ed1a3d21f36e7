//! Requests that the service itself sends: of webhooks, and for the keys of the tokens' issuer.

use reqwest::{Client, ClientBuilder, redirect};

/// A client that follows no redirect and heeds no proxy of the environment.
pub(crate) fn builder() -> ClientBuilder {
    // The crypto provider of this process; another caller may have set one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("stock-flow/", env!("CARGO_PKG_VERSION")))
}

/// An error with its causes, without the URL, which may hold secrets.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = match error.status() {
        Some(status) => format!("answered {status}"),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None => "not reached".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
