//! The audit log: what admins did, and who came in or failed to. Rows are only ever added.

use chrono::NaiveDateTime;
use sqlx::MySqlPool;
use stock_common::id::UserId;

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What happened.
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
    /// Somebody came in with a password.
    LoggedIn = "logged_in";
    /// Somebody tried, with a wrong password or an unknown address.
    LoginFailed = "login_failed";
    /// Somebody tried too often.
    LoginLimited = "login_limited";
    /// A session was ended by its user.
    LoggedOut = "logged_out";
    /// All of a user's tokens and sessions were ended.
    LoggedOutEverywhere = "logged_out_everywhere";
    /// A refresh token came back that had been used: its family was ended.
    RefreshReused = "refresh_reused";
    /// A user chose another password.
    PasswordChanged = "password_changed";
    /// A user got another role.
    RoleChanged = "role_changed";
    /// A user was deleted.
    UserDeleted = "user_deleted";
    /// A product was made.
    ProductCreated = "product_created";
    /// A product was changed.
    ProductChanged = "product_changed";
    /// A product was taken away.
    ProductDeleted = "product_deleted";
    /// All selling was stopped or resumed.
    SellingSwitched = "selling_switched";
    /// An admin gave a product a discount.
    DiscountCreated = "discount_created";
    /// An admin made a sale.
    SaleCreated = "sale_created";
    /// A sale was changed.
    SaleChanged = "sale_changed";
    /// An admin ended a sale's rule.
    SaleDeleted = "sale_deleted";
    /// An admin took stock in.
    StockReceived = "stock_received";
    /// An admin corrected stock.
    StockAdjusted = "stock_adjusted";
    /// An admin wrote stock from a file.
    StockImported = "stock_imported";
    /// An admin took back what a reservation had sold.
    ReservationForced = "reservation_forced";
    /// An admin made a campaign item.
    WorkCreated = "work_created";
    /// An admin gave a campaign item another title.
    WorkChanged = "work_changed";
    /// An admin took a campaign item away.
    WorkDeleted = "work_deleted";
    /// An admin made a coupon.
    CouponCreated = "coupon_created";
    /// An admin gave a user points.
    PointsEarned = "points_earned";
    /// An admin took back what somebody earned or used.
    PointsCancelled = "points_cancelled";
    /// An admin made a store.
    StoreCreated = "store_created";
    /// An admin changed a store.
    StoreChanged = "store_changed";
    /// Somebody resolved a sale for which there was no stock.
    OversoldResolved = "oversold_resolved";
    /// Somebody resolved a sale of a till that could not be taken.
    InvalidSaleResolved = "invalid_sale_resolved";
    /// An admin made a webhook.
    WebhookCreated = "webhook_created";
    /// An admin changed a webhook.
    WebhookChanged = "webhook_changed";
    /// An admin removed a webhook.
    WebhookDeleted = "webhook_deleted";
    /// An admin had an entry's tables written again.
    DeadLetterRetried = "dead_letter_retried";
    /// An admin ended the quarantine of an account.
    AccountReleased = "account_released";
    /// An admin had the ledger proved.
    LedgerVerified = "ledger_verified";
}

/// One line of the log.
#[derive(Debug)]
pub struct Event<'a> {
    /// What happened.
    pub action: Action,
    /// Who did it, if they are known.
    pub actor: Option<UserId>,
    /// To whom or what: an address, `user:7`, `product:3`.
    pub subject: &'a str,
    /// Where the request came from.
    pub address: &'a str,
    /// The request.
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
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Line {
    /// Rises with every line.
    pub id: u64,
    /// When, UTC.
    pub at: NaiveDateTime,
    /// A name of [`Action`].
    pub action: String,
    /// Who did it, if they were known.
    pub actor_id: Option<u64>,
    /// To whom or what.
    pub subject: String,
    /// Where the request came from.
    pub address: String,
    /// The request.
    pub request_id: String,
}

/// Lists lines, the latest first.
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
