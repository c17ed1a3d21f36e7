//! The audit log: the actions of admins, and logins that succeeded or failed. Rows are only ever
//! added.

use chrono::NaiveDateTime;
use sqlx::MySqlPool;
use stock_common::id::UserId;

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// The action that an event reports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action { $($(#[$doc])* $variant,)* }

        impl Action {
            /// The name in the table.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

actions! {
    /// Somebody signed up.
    SignedUp = "signed_up";
    /// Somebody logged in with a password.
    LoggedIn = "logged_in";
    /// Somebody failed to log in, with a wrong password or an unknown address.
    LoginFailed = "login_failed";
    /// Somebody tried to log in too often.
    LoginLimited = "login_limited";
    /// A user ended a session.
    LoggedOut = "logged_out";
    /// All of a user's tokens and sessions were ended.
    LoggedOutEverywhere = "logged_out_everywhere";
    /// A refresh token that had been used came back, and its family was ended.
    RefreshReused = "refresh_reused";
    /// A user chose another password.
    PasswordChanged = "password_changed";
    /// A user got another role.
    RoleChanged = "role_changed";
    /// A user was deleted.
    UserDeleted = "user_deleted";
    /// A product was created.
    ProductCreated = "product_created";
    /// A product was changed.
    ProductChanged = "product_changed";
    /// A product was deleted.
    ProductDeleted = "product_deleted";
    /// All selling was stopped or resumed.
    SellingSwitched = "selling_switched";
    /// An admin gave a product a discount.
    DiscountCreated = "discount_created";
    /// An admin created a sale.
    SaleCreated = "sale_created";
    /// A sale was changed.
    SaleChanged = "sale_changed";
    /// An admin deleted a sale.
    SaleDeleted = "sale_deleted";
    /// An admin received stock.
    StockReceived = "stock_received";
    /// An admin corrected stock.
    StockAdjusted = "stock_adjusted";
    /// An admin imported stock from a file.
    StockImported = "stock_imported";
    /// An admin cancelled a reservation that had been confirmed.
    ReservationForced = "reservation_forced";
    /// An admin created a campaign item.
    WorkCreated = "work_created";
    /// An admin changed the title of a campaign item.
    WorkChanged = "work_changed";
    /// An admin deleted a campaign item.
    WorkDeleted = "work_deleted";
    /// An admin created a coupon.
    CouponCreated = "coupon_created";
    /// An admin gave a user points.
    PointsEarned = "points_earned";
    /// An admin cancelled points that somebody had earned or used.
    PointsCancelled = "points_cancelled";
    /// An admin created a store.
    StoreCreated = "store_created";
    /// An admin changed a store.
    StoreChanged = "store_changed";
    /// Somebody resolved an oversold sale.
    OversoldResolved = "oversold_resolved";
    /// Somebody resolved an invalid sale of a till.
    InvalidSaleResolved = "invalid_sale_resolved";
    /// An admin created a webhook.
    WebhookCreated = "webhook_created";
    /// An admin changed a webhook.
    WebhookChanged = "webhook_changed";
    /// An admin removed a webhook.
    WebhookDeleted = "webhook_deleted";
    /// An admin made a service key.
    ServiceKeyCreated = "service_key_created";
    /// An admin took a service key back.
    ServiceKeyDeleted = "service_key_deleted";
    /// An admin retried a dead letter.
    DeadLetterRetried = "dead_letter_retried";
    /// An admin ended the quarantine of an account.
    AccountReleased = "account_released";
    /// An admin ran `verify`.
    LedgerVerified = "ledger_verified";
}

/// An event, written as one line of the log.
#[derive(Debug)]
pub struct Event<'a> {
    /// The action.
    pub action: Action,
    /// The user who acted, if known.
    pub actor: Option<UserId>,
    /// The subject of the action: an address, `user:7`, `product:3`.
    pub subject: &'a str,
    /// The IP address that the request came from.
    pub address: &'a str,
    /// The id of the request.
    pub request_id: &'a str,
}

/// Writes a line.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert(pool: &MySqlPool, event: &Event<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit_log (action, actor_id, subject, address, request_id) \
         VALUES (?, ?, LEFT(?, 254), ?, ?)",
    )
    .bind(event.action.as_str())
    .bind(event.actor.map(|actor| actor.0))
    .bind(event.subject)
    .bind(event.address)
    .bind(event.request_id)
    .execute(pool)
    .await?;
    Ok(())
}

/// A line as it is stored.
#[derive(Debug, Clone)]
pub struct Line {
    /// Rises with every line.
    pub id: u64,
    /// When the line was written, UTC.
    pub at: NaiveDateTime,
    /// A name of [`Action`].
    pub action: String,
    /// The user who acted, if known.
    pub actor_id: Option<u64>,
    /// The subject of the action.
    pub subject: String,
    /// The IP address that the request came from.
    pub address: String,
    /// The id of the request.
    pub request_id: String,
}

from_row!(Line {
    id,
    at,
    action,
    actor_id,
    subject,
    address,
    request_id
});

/// Lists lines, latest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<Line>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, at, action, actor_id, subject, address, request_id FROM audit_log \
         WHERE id < ? ORDER BY id DESC LIMIT ?",
    )
    .bind(before.unwrap_or(u64::MAX))
    .bind(limit)
    .fetch_all(pool)
    .await
}
