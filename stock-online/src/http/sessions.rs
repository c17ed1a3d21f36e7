//! Sessions of pages: a cookie with a random id, and a row in MySQL that names its user.

use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::MySqlPool;
use stock_mysql::people::sessions;
use tower_sessions::cookie::SameSite;
use tower_sessions::cookie::time::{Duration, OffsetDateTime};
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};
use tower_sessions::{Expiry, SessionManagerLayer, SessionStore};

use crate::app::App;
use crate::kept::Kept;

/// Key under which a session keeps its login.
pub const LOGIN: &str = "login";

/// The layer that reads and writes sessions.
pub fn layer(app: &App) -> SessionManagerLayer<Store> {
    let config = &app.config;
    // A browser takes a `__Host-` cookie only over TLS, from this host alone.
    let name = if config.http.public_tls {
        "__Host-session"
    } else {
        "session"
    };
    let rest = Duration::seconds(config.people.session_seconds);
    let store = Store {
        pool: app.pool.clone(),
        kept: Arc::clone(&app.people.sessions),
    };
    SessionManagerLayer::new(store)
        .with_name(name)
        .with_http_only(true)
        .with_same_site(SameSite::Lax)
        .with_secure(config.http.public_tls)
        .with_expiry(Expiry::OnInactivity(rest))
}

/// Sessions in MySQL, stored by the hash of their id, so that a reader of the table cannot use
/// them.
#[derive(Debug, Clone)]
pub struct Store {
    pool: MySqlPool,
    kept: Arc<Kept<sessions::IdHash, Option<(String, i64)>>>,
}

fn hash(id: &Id) -> sessions::IdHash {
    Sha256::digest(id.0.to_be_bytes()).into()
}

fn backend(error: impl std::fmt::Display) -> Error {
    Error::Backend(error.to_string())
}

#[async_trait]
impl SessionStore for Store {
    async fn create(&self, record: &mut Record) -> Result<()> {
        // 128 random bits: none is drawn twice.
        self.save(record).await
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let data = serde_json::to_string(&record.data)
            .map_err(|error| Error::Encode(error.to_string()))?;
        let ends = record.expiry_date.unix_timestamp();
        let id = hash(&record.id);
        let written = sessions::write(&self.pool, &id, &data, ends).await;
        self.kept.forget(&id).await;
        written.map_err(backend)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let id_hash = hash(id);
        let read = sessions::read(&self.pool, &id_hash);
        let row = self.kept.get(id_hash, read).await.map_err(backend)?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let Some((data, ends)) = row.filter(|(_, ends)| *ends > now) else {
            return Ok(None);
        };
        let data = serde_json::from_str(&data).map_err(|error| Error::Decode(error.to_string()))?;
        Ok(Some(Record {
            id: *id,
            data,
            expiry_date: OffsetDateTime::from_unix_timestamp(ends).map_err(backend)?,
        }))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let id = hash(id);
        let deleted = sessions::delete(&self.pool, &id).await;
        self.kept.forget(&id).await;
        deleted.map_err(backend)
    }
}
