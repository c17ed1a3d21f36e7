//! Error codes: the stable names by which clients recognize a problem.
//!
//! `docs/errors.md` lists the same codes with advice for each; a test compares the two.

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $title:literal;)*) => {
        /// A stable error code, the `code` of every `application/problem+json` answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code, in the order of `docs/errors.md`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that clients see.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status of the code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Its meaning, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    MalformedJson = "MALFORMED_JSON", 400, "The body is not valid JSON";
    /// The request line, a header or the query cannot be read.
    BadRequest = "BAD_REQUEST", 400, "The request cannot be read";
    /// The Idempotency-Key header is empty, too long or not visible ASCII.
    IdempotencyKeyInvalid = "IDEMPOTENCY_KEY_INVALID", 400, "The Idempotency-Key is not valid";
    /// There is no token, or it is not valid.
    Unauthorized = "UNAUTHORIZED", 401, "A valid access token is required";
    /// The email or the password is wrong; the answer does not say which.
    InvalidCredentials = "INVALID_CREDENTIALS", 401, "Email or password is wrong";
    /// The refresh token is unknown, expired, or was used before. A second use ends every token of
    /// its login.
    RefreshTokenInvalid = "REFRESH_TOKEN_INVALID", 401, "The refresh token does not hold";
    /// The message has no valid signature.
    SignatureInvalid = "SIGNATURE_INVALID", 401, "The message has no valid signature";
    /// The role may not do this.
    Forbidden = "FORBIDDEN", 403, "The role of the token does not allow this";
    /// The service key may do other things only.
    ScopeMissing = "SCOPE_MISSING", 403, "The service key lacks the scope";
    /// The body names another user than the token.
    UserMismatch = "USER_MISMATCH", 403, "The request names another user";
    /// A browser sent a session's cookie from another site's page.
    CrossSiteRequest = "CROSS_SITE_REQUEST", 403, "The request came from another site";
    /// There is no such route, or no such object of a kind that has no code of its own.
    NotFound = "NOT_FOUND", 404, "There is nothing here";
    /// There is no such product, or it was deleted.
    ProductNotFound = "PRODUCT_NOT_FOUND", 404, "There is no such product";
    /// There is no such order, or it is another user's.
    OrderNotFound = "ORDER_NOT_FOUND", 404, "There is no such order";
    /// There is no such reservation, or it is another user's.
    ReservationNotFound = "RESERVATION_NOT_FOUND", 404, "There is no such reservation";
    /// There is no such checkout, or it is another user's.
    CheckoutNotFound = "CHECKOUT_NOT_FOUND", 404, "There is no such checkout";
    /// There is no such store.
    StoreNotFound = "STORE_NOT_FOUND", 404, "There is no such store";
    /// There is no such webhook or delivery.
    WebhookNotFound = "WEBHOOK_NOT_FOUND", 404, "There is no such webhook";
    /// There is no such service key, or it was taken back.
    ServiceKeyNotFound = "SERVICE_KEY_NOT_FOUND", 404, "There is no such service key";
    /// There is no such coupon to draw.
    CouponNotFound = "COUPON_NOT_FOUND", 404, "There is no such coupon";
    /// There is no such campaign item.
    WorkNotFound = "WORK_NOT_FOUND", 404, "There is no such work";
    /// There is no such movement of points, or it is another user's.
    PointNotFound = "POINT_NOT_FOUND", 404, "There is no such movement of points";
    /// The product has no such sale.
    SaleNotFound = "SALE_NOT_FOUND", 404, "There is no such sale";
    /// The route exists, the method does not.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405, "The method is not allowed here";
    /// The body did not arrive in time.
    RequestTimeout = "REQUEST_TIMEOUT", 408, "The body did not arrive in time";
    /// An account with this address exists.
    EmailTaken = "EMAIL_TAKEN", 409, "There is an account with this email";
    /// The product cannot be ordered now.
    ProductNotOnSale = "PRODUCT_NOT_ON_SALE", 409, "The product is not on sale";
    /// The unit price sent is not the current one.
    PriceChanged = "PRICE_CHANGED", 409, "The price has changed";
    /// The sale has not begun.
    SaleNotOpen = "SALE_NOT_OPEN", 409, "The sale has not begun";
    /// The sale is over.
    SaleClosed = "SALE_CLOSED", 409, "The sale is over";
    /// The product has a sale that is not over.
    SaleExists = "SALE_EXISTS", 409, "The product has a sale that is not over";
    /// The sale has begun, so this member cannot change any more.
    SaleHasBegun = "SALE_HAS_BEGUN", 409, "The sale has begun";
    /// A buyer has taken more than the new limit.
    SaleLimitBelowTaken = "SALE_LIMIT_BELOW_TAKEN", 409, "A buyer has had more than that";
    /// Less is available than was asked for.
    InsufficientStock = "INSUFFICIENT_STOCK", 409, "There is not enough stock";
    /// The buyer has taken all that the sale allows one buyer.
    PurchaseLimitReached = "PURCHASE_LIMIT_REACHED", 409, "The sale allows one buyer no more";
    /// The user has as many live reservations as the service allows.
    HoldLimitReached = "HOLD_LIMIT_REACHED", 409, "There are too many live reservations";
    /// The user holds as many units of the product as the service allows.
    HoldUnitsReached = "HOLD_UNITS_REACHED", 409, "No more units of the product may be held";
    /// The reservation was confirmed.
    ReservationAlreadyConfirmed = "RESERVATION_ALREADY_CONFIRMED", 409, "The reservation was confirmed before";
    /// The reservation was cancelled.
    ReservationAlreadyCancelled = "RESERVATION_ALREADY_CANCELLED", 409, "The reservation was cancelled before";
    /// The reservation's time is over.
    ReservationAlreadyExpired = "RESERVATION_ALREADY_EXPIRED", 409, "The reservation has expired";
    /// The order does not ask for what the reservation holds.
    ReservationMismatch = "RESERVATION_MISMATCH", 409, "The reservation holds something else";
    /// The checkout was paid, cancelled or has expired.
    CheckoutOver = "CHECKOUT_OVER", 409, "The checkout is over";
    /// The checkout cannot be extended any further.
    CheckoutExtensionsSpent = "CHECKOUT_EXTENSIONS_SPENT", 409, "The checkout cannot be extended again";
    /// Products of a sale are sold through checkouts only.
    CheckoutRequired = "CHECKOUT_REQUIRED", 409, "The sale needs a checkout";
    /// The amount paid is not the frozen total.
    AmountMismatch = "AMOUNT_MISMATCH", 409, "The amount is not the frozen total";
    /// The payment came too late and sold nothing: it is to be refunded.
    RefundDue = "REFUND_DUE", 409, "The payment is to be refunded";
    /// Another product has the SKU.
    SkuTaken = "SKU_TAKEN", 409, "Another product has this SKU";
    /// The maximum number of service keys exists already.
    ServiceKeyLimitReached = "SERVICE_KEY_LIMIT_REACHED", 409, "There are too many service keys";
    /// The maximum number of webhooks exists already.
    WebhookLimitReached = "WEBHOOK_LIMIT_REACHED", 409, "There are too many webhooks";
    /// There is a store with this number.
    StoreExists = "STORE_EXISTS", 409, "There is a store with this number";
    /// The available stock is not the stock that the request expects.
    StockChanged = "STOCK_CHANGED", 409, "The stock has changed";
    /// The user has already drawn this coupon for this work.
    CouponAlreadyIssued = "COUPON_ALREADY_ISSUED", 409, "The coupon was issued to this user before";
    /// Every code of the coupon has been drawn.
    CouponSoldOut = "COUPON_SOLD_OUT", 409, "There is none of the coupon left";
    /// The coupon's time has not begun.
    CouponNotOpen = "COUPON_NOT_OPEN", 409, "The coupon cannot be drawn yet";
    /// The coupon's time is over.
    CouponClosed = "COUPON_CLOSED", 409, "The coupon cannot be drawn any more";
    /// A coupon with this code exists.
    CouponCodeTaken = "COUPON_CODE_TAKEN", 409, "There is a coupon with this code";
    /// A work with this title exists.
    WorkTitleTaken = "WORK_TITLE_TAKEN", 409, "There is a work with this title";
    /// The user has no such coupon, or it cannot be used now.
    CouponNotUsable = "COUPON_NOT_USABLE", 409, "The coupon cannot be used";
    /// The user has fewer points.
    InsufficientPoints = "INSUFFICIENT_POINTS", 409, "There are not enough points";
    /// The movement of points was cancelled.
    PointAlreadyCanceled = "POINT_ALREADY_CANCELED", 409, "The movement of points was cancelled before";
    /// The movement of points is a cancel, or belongs to an order.
    PointNotCancelable = "POINT_NOT_CANCELABLE", 409, "This movement of points cannot be cancelled by itself";
    /// The order's status does not allow this.
    InvalidOrderStatus = "INVALID_ORDER_STATUS", 409, "The order's status does not allow this";
    /// Fewer units of the order are left.
    OrderUnitsExceeded = "ORDER_UNITS_EXCEEDED", 409, "Fewer units of the order are left";
    /// A level would exceed 2^53 − 1.
    StockLimitReached = "STOCK_LIMIT_REACHED", 409, "The stock level would become too large";
    /// The dead letter's own tables refuse it again.
    DeadLetterStays = "DEAD_LETTER_STAYS", 409, "The entry's tables refuse it still";
    /// An account stays under quarantine.
    QuarantineStays = "QUARANTINE_STAYS", 409, "The account stays under quarantine";
    /// A request under the same key is being worked on.
    RequestInProgress = "REQUEST_IN_PROGRESS", 409, "The same request is being worked on";
    /// The object has changed since the `If-Match` version.
    PreconditionFailed = "PRECONDITION_FAILED", 412, "The object has changed";
    /// The body is too large.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", 413, "The body is too large";
    /// The body is not declared as JSON.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", 415, "Content-Type must be application/json";
    /// The JSON does not fit the request's shape.
    Unprocessable = "UNPROCESSABLE", 422, "The request does not fit";
    /// The total sent is not the one computed.
    TotalAmountMismatch = "TOTAL_AMOUNT_MISMATCH", 422, "The total amount does not match";
    /// The key was used for another request.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", 422, "The Idempotency-Key was used before";
    /// The user or the address has asked too often.
    TooManyRequests = "TOO_MANY_REQUESTS", 429, "Too many requests";
    /// The header is too large.
    HeadersTooLarge = "HEADERS_TOO_LARGE", 431, "The headers are too large";
    /// A fault of the service; the log has the details under the request id.
    Internal = "INTERNAL", 500, "Something went wrong";
    /// Redis does not answer, or is not verified as the Redis that MySQL knows.
    Fenced = "FENCED", 503, "Selling is suspended until the ledger is verified";
    /// The settings of Redis cannot keep accepted orders.
    UnsafeRedis = "UNSAFE_REDIS", 503, "Redis is not set up to keep orders";
    /// An operator stopped selling.
    SellingStopped = "SELLING_STOPPED", 503, "Selling is stopped";
    /// The queue is full, or the request waited too long.
    Overloaded = "OVERLOADED", 503, "The service is overloaded";
    /// MySQL is too far behind.
    Backlog = "BACKLOG", 503, "Too many orders wait to be stored";
    /// It is not known whether the change was made; a retry with the same key tells.
    OutcomeUnknown = "OUTCOME_UNKNOWN", 503, "The outcome is not known";
    /// An account or a book in Redis cannot be read.
    AccountBroken = "ACCOUNT_BROKEN", 503, "What it needs is being brought back";
    /// MySQL did not answer.
    DatabaseUnavailable = "DATABASE_UNAVAILABLE", 503, "The database is not available";
    /// The keys of the tokens' issuer were not read, so it is not known whether the token holds.
    IssuerUnavailable = "ISSUER_UNAVAILABLE", 503, "The token cannot be checked";
    /// The request took longer than the service allows.
    Timeout = "TIMEOUT", 503, "The request took too long";
}

impl Code {
    /// The code of a name, for answers that were remembered under an Idempotency-Key.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}
