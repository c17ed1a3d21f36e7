//! Every operation with its callers, its body and its answers, in the order of
//! [`crate::http::routes`].

use utoipa::openapi::HttpMethod;

use stock_domain::service_key::Scope;

use super::{Carries, Operation, Who};
use crate::http::code::Code;

const PRODUCTS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("name", "text"),
    ("sku", "text"),
    ("status", "productStatus"),
    ("priceGte", "integer"),
    ("priceLte", "integer"),
    ("source", "source"),
];
const PRODUCT: &[(&str, &str)] = &[("source", "source")];
const PAGE: &[(&str, &str)] = &[("limit", "limit"), ("cursor", "id")];
const LEVELS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "pair"),
    ("productId", "integer"),
    ("locationId", "integer"),
    ("low", "boolean"),
    ("reorder", "boolean"),
];
const MOVEMENTS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "pair"),
    ("locationId", "integer"),
];
const STATISTICS: &[(&str, &str)] = &[("from", "date"), ("to", "date"), ("locationId", "integer")];
const RESERVATIONS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("status", "reservationStatus"),
    ("productId", "integer"),
];
const CHECKOUTS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("status", "checkoutStatus"),
];
const PAYMENTS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("checkoutId", "id"),
    ("refundDue", "boolean"),
];
const DELIVERIES: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("state", "deliveryState"),
];
const OVERSOLD: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("resolved", "boolean"),
];
const ORDERS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("userId", "integer"),
    ("buyer", "text"),
    ("status", "orderStatus"),
];
const PLACE: &[Code] = &[
    Code::UserMismatch,
    Code::ProductNotFound,
    Code::ProductNotOnSale,
    Code::PriceChanged,
    Code::TotalAmountMismatch,
    Code::InsufficientStock,
    Code::SaleNotOpen,
    Code::SaleClosed,
    Code::CheckoutRequired,
    Code::PurchaseLimitReached,
    Code::ReservationNotFound,
    Code::ReservationMismatch,
    Code::ReservationAlreadyConfirmed,
    Code::ReservationAlreadyCancelled,
    Code::ReservationAlreadyExpired,
    Code::CouponNotUsable,
    Code::InsufficientPoints,
];
const SELL: &[Code] = &[
    Code::StoreNotFound,
    Code::UserMismatch,
    Code::ProductNotFound,
    Code::ProductNotOnSale,
    Code::PriceChanged,
    Code::TotalAmountMismatch,
    Code::InsufficientStock,
    Code::SaleNotOpen,
    Code::SaleClosed,
];
const RESERVE: &[Code] = &[
    Code::ProductNotFound,
    Code::ProductNotOnSale,
    Code::InsufficientStock,
    Code::SaleNotOpen,
    Code::SaleClosed,
    Code::PurchaseLimitReached,
    Code::HoldLimitReached,
    Code::HoldUnitsReached,
];
const OPEN_CHECKOUT: &[Code] = &[
    Code::UserMismatch,
    Code::ProductNotFound,
    Code::ProductNotOnSale,
    Code::PriceChanged,
    Code::TotalAmountMismatch,
    Code::InsufficientStock,
    Code::SaleNotOpen,
    Code::SaleClosed,
    Code::PurchaseLimitReached,
    Code::HoldLimitReached,
    Code::HoldUnitsReached,
    Code::CouponNotUsable,
    Code::InsufficientPoints,
];
const END: &[Code] = &[
    Code::ReservationNotFound,
    Code::ReservationAlreadyConfirmed,
    Code::ReservationAlreadyCancelled,
    Code::ReservationAlreadyExpired,
];
const CHANGE: &[Code] = &[
    Code::ProductNotFound,
    Code::StoreNotFound,
    Code::InsufficientStock,
    Code::StockChanged,
    Code::StockLimitReached,
];
const STOCK: &[Code] = &[
    Code::ProductNotFound,
    Code::StoreNotFound,
    Code::DatabaseUnavailable,
    Code::Fenced,
];
const DAYS: &[(&str, &str)] = &[("from", "date"), ("to", "date")];
const ISSUE: &[Code] = &[
    Code::CouponNotFound,
    Code::WorkNotFound,
    Code::CouponAlreadyIssued,
    Code::CouponSoldOut,
    Code::CouponNotOpen,
    Code::CouponClosed,
];
const CANCEL_POINTS: &[Code] = &[
    Code::PointNotFound,
    Code::Forbidden,
    Code::PointNotCancelable,
    Code::PointAlreadyCanceled,
    Code::InsufficientPoints,
];
const CANCEL: &[Code] = &[
    Code::OrderNotFound,
    Code::InvalidOrderStatus,
    Code::OrderUnitsExceeded,
    Code::InsufficientPoints,
];
const RETURN: &[Code] = &[
    Code::OrderNotFound,
    Code::StoreNotFound,
    Code::InvalidOrderStatus,
    Code::OrderUnitsExceeded,
    Code::InsufficientPoints,
];
const SHOW: &[Code] = &[
    Code::ProductNotFound,
    Code::DatabaseUnavailable,
    Code::Fenced,
    Code::AccountBroken,
];
const READ: &[Code] = &[Code::DatabaseUnavailable, Code::Fenced];

macro_rules! operations {
    ($(
        $method:ident $path:literal $summary:literal $who:ident $(/ $scope:ident)*
        $carries:expr, $query:expr, $ok:expr, $codes:expr;
    )*) => {
        pub(super) const OPERATIONS: &[Operation] = &[$(Operation {
            method: HttpMethod::$method,
            path: $path,
            summary: $summary,
            who: Who::$who,
            scopes: &[$(Scope::$scope),*],
            carries: $carries,
            query: $query,
            ok: $ok,
            codes: $codes,
        },)*];
    };
}

operations! {
    Post "/api/redis/orders" "Order, Redis first" User / OrdersWrite
        Carries::Body("OrderIn"), &[], (201, "OrderOut"), PLACE;
    Patch "/api/redis/orders/{order_id}/cancel" "Cancel all or a part, Redis first" User
        / OrdersWrite
        Carries::Maybe("OrderCancelIn"), &[], (200, "OrderOut"), CANCEL;
    Post "/api/orders" "Order under row locks in MySQL" User / OrdersWrite
        Carries::Body("OrderIn"), &[], (201, "OrderOut"), PLACE;
    Post "/api/orders/batch" "Orders of a back end, each with its own key and verdict" Admin
        / OrdersWrite
        Carries::Body("OrderBatchIn"), &[], (200, "OrderBatchOut"), &[];
    Get "/api/orders" "Own stored orders, newest first" User / OrdersRead
        Carries::Nothing, ORDERS, (200, "OrderListOut"), &[Code::Forbidden, Code::DatabaseUnavailable];
    Get "/api/orders/{order_id}" "One order, stored or not" User / OrdersRead
        Carries::Nothing, &[], (200, "OrderOut"), &[Code::OrderNotFound, Code::DatabaseUnavailable, Code::Fenced];
    Patch "/api/orders/{order_id}/cancel" "Cancel all or a part under row locks" User / OrdersWrite
        Carries::Maybe("OrderCancelIn"), &[], (200, "OrderOut"), CANCEL;
    Post "/api/orders/{order_id}/returns" "Book sold goods back in, or write them off" Admin
        / OrdersWrite
        Carries::Body("ReturnIn"), &[], (200, "OrderOut"), RETURN;
    Get "/api/redis/products" "Products, newest first" Anyone
        Carries::Nothing, PRODUCTS, (200, "ProductListOut"), READ;
    Get "/api/redis/products/{id}" "One product" Anyone
        Carries::Nothing, PRODUCT, (200, "DetailOut"), SHOW;
    Get "/api/products" "Products, newest first" Anyone
        Carries::Nothing, PRODUCTS, (200, "ProductListOut"), READ;
    Post "/api/products" "Make a product" Admin / CatalogWrite
        Carries::Body("ProductIn"), &[], (201, "DetailOut"),
        &[Code::SkuTaken, Code::StockLimitReached];
    Get "/api/products/{id}" "One product" Anyone
        Carries::Nothing, PRODUCT, (200, "DetailOut"), SHOW;
    Put "/api/products/{id}" "Write a product" Admin / CatalogWrite
        Carries::Body("ProductIn"), &[], (200, "DetailOut"),
        &[Code::ProductNotFound, Code::SkuTaken, Code::PreconditionFailed];
    Patch "/api/products/{id}" "Change a product" Admin / CatalogWrite
        Carries::Body("ProductIn"), &[], (200, "DetailOut"),
        &[Code::ProductNotFound, Code::SkuTaken, Code::PreconditionFailed];
    Delete "/api/products/{id}" "Take a product away" Admin / CatalogWrite
        Carries::Nothing, &[], (204, ""), &[Code::ProductNotFound, Code::PreconditionFailed, Code::Fenced, Code::Overloaded, Code::DatabaseUnavailable];
    Post "/api/products/{id}/discounts" "Give a product a discount, in place of an earlier one" Admin
        / CatalogWrite
        Carries::Body("DiscountIn"), &[], (201, "DiscountOut"), &[Code::ProductNotFound];
    Post "/api/products/{id}/sales" "Let a sale govern a product" Admin / CatalogWrite
        Carries::Body("SaleIn"), &[], (201, "SaleOut"), &[Code::ProductNotFound, Code::SaleExists];
    Patch "/api/products/{id}/sales/{sale_id}" "Change a sale that is planned or runs" Admin
        / CatalogWrite
        Carries::Body("SaleEdit"), &[], (200, "SaleOut"), &[Code::SaleNotFound, Code::SaleClosed, Code::SaleHasBegun,
            Code::SaleLimitBelowTaken, Code::Backlog];
    Delete "/api/products/{id}/sales/{sale_id}" "End the rule of a sale" Admin / CatalogWrite
        Carries::Nothing, &[], (204, ""), &[Code::SaleNotFound, Code::DatabaseUnavailable];
    Get "/api/sales" "Sales of all products, newest first" Admin / CatalogWrite
        Carries::Nothing, PAGE, (200, "SaleListOut"), &[Code::DatabaseUnavailable];
    Get "/api/products/stock/available" "Stock by product and location" User
        / StockWrite / OrdersRead / CatalogWrite
        Carries::Nothing, LEVELS, (200, "LevelListOut"), READ;
    Post "/api/products/stock/inbound" "Take stock in" Admin / StockWrite
        Carries::Body("InboundIn"), &[], (201, "InboundOut"), CHANGE;
    Post "/api/products/{id}/stock" "Correct stock, by compare-and-set if asked" Admin / StockWrite
        Carries::Body("AdjustIn"), &[], (200, "AdjustOut"), CHANGE;
    Get "/api/products/{id}/stock/movements" "Every posting of a product's stock, newest first" Admin
        / StockWrite
        Carries::Nothing, MOVEMENTS, (200, "MovementListOut"), STOCK;
    Get "/api/products/{id}/stock/statistics" "What happened to a product's stock per day" Admin
        / StockWrite
        Carries::Nothing, STATISTICS, (200, "StatisticsOut"), STOCK;
    Post "/api/products/stock/reserve" "Set stock aside for a while" User / CheckoutsWrite
        Carries::Body("ReserveIn"), &[], (201, "ReservationOut"), RESERVE;
    Get "/api/reservations" "Own reservations, newest first" User / OrdersRead / CheckoutsWrite
        Carries::Nothing, RESERVATIONS, (200, "ReservationListOut"), &[Code::DatabaseUnavailable];
    Get "/api/reservations/{id}" "One reservation, stored or not" User / OrdersRead / CheckoutsWrite
        Carries::Nothing, &[], (200, "ReservationOut"), &[Code::ReservationNotFound, Code::DatabaseUnavailable, Code::Fenced];
    Post "/api/reservations/{id}/confirm" "Sell what was set aside" Admin / CheckoutsConfirm
        Carries::Maybe("NothingIn"), &[], (200, "ReservationOut"), END;
    Post "/api/reservations/{id}/cancel" "Give back what was set aside" User / CheckoutsWrite
        Carries::Maybe("CancelIn"), &[], (200, "ReservationOut"), &[Code::ReservationNotFound,
            Code::ReservationAlreadyConfirmed, Code::ReservationAlreadyCancelled, Code::ReservationAlreadyExpired, Code::Forbidden];
    Post "/api/checkouts" "Hold a cart at its total while its buyer pays" User / CheckoutsWrite
        Carries::Body("CheckoutIn"), &[], (201, "CheckoutOut"), OPEN_CHECKOUT;
    Get "/api/checkouts" "Own checkouts, newest first" User
        / OrdersRead / CheckoutsWrite / CheckoutsConfirm
        Carries::Nothing, CHECKOUTS, (200, "CheckoutListOut"), &[Code::DatabaseUnavailable];
    Get "/api/checkouts/{id}" "One checkout, stored or not" User
        / OrdersRead / CheckoutsWrite / CheckoutsConfirm
        Carries::Nothing, &[], (200, "CheckoutOut"),
        &[Code::CheckoutNotFound, Code::DatabaseUnavailable, Code::Fenced];
    Post "/api/checkouts/{id}/extend" "Give a checkout more time" User / CheckoutsWrite
        Carries::Body("ExtendIn"), &[], (200, "CheckoutOut"),
        &[Code::CheckoutNotFound, Code::CheckoutOver, Code::CheckoutExtensionsSpent];
    Post "/api/checkouts/{id}/confirm" "Report the payment that makes a checkout an order" Admin
        / CheckoutsConfirm
        Carries::Body("ConfirmIn"), &[], (200, "ConfirmedOut"),
        &[Code::CheckoutNotFound, Code::CheckoutOver, Code::AmountMismatch, Code::RefundDue];
    Post "/api/checkouts/{id}/cancel" "Give back what a checkout holds" User / CheckoutsWrite
        Carries::Maybe("NothingIn"), &[], (200, "CheckoutOut"),
        &[Code::CheckoutNotFound, Code::CheckoutOver];
    Get "/api/payments" "Payments and what became of each, newest first" Admin
        / OrdersRead / CheckoutsConfirm
        Carries::Nothing, PAYMENTS, (200, "PaymentListOut"), &[Code::DatabaseUnavailable];
    Post "/api/payments/events" "A message of the payment provider, signed" Anyone
        Carries::Body("EventIn"), &[], (200, "EventOut"),
        &[Code::SignatureInvalid, Code::CheckoutNotFound];
    Get "/api/stores" "Every store" Anyone
        Carries::Nothing, PAGE, (200, "StoreListOut"), READ;
    Post "/api/stores" "Make a store" Admin / CatalogWrite
        Carries::Body("StoreIn"), &[], (201, "StoreOut"), &[Code::StoreExists];
    Put "/api/stores/{store_id}" "Write a store" Admin / CatalogWrite
        Carries::Body("StoreIn"), &[], (200, "StoreOut"), &[Code::StoreNotFound];
    Get "/api/stores/{store_id}/products" "A store's products with stock" Anyone
        Carries::Nothing, PAGE, (200, "StoreProductListOut"), STOCK;
    Get "/api/stores/{store_id}/products/{product_id}/stock" "A product's stock in a store" Anyone
        Carries::Nothing, &[], (200, "StoreStockOut"), STOCK;
    Get "/api/stores/{store_id}/products/{product_id}/stock/nearby" "Its stock in the other stores, nearest first" Anyone
        Carries::Nothing, &[("limit", "limit")], (200, "NearbyListOut"), STOCK;
    Post "/api/stores/{store_id}/orders" "Sell at a till" Till
        Carries::Body("TillOrderIn"), &[], (201, "OrderOut"), SELL;
    Patch "/api/stores/{store_id}/orders/{order_id}/cancel" "Take back what a till sold" Till
        Carries::Maybe("NothingIn"), &[], (200, "OrderOut"), CANCEL;
    Post "/api/stores/{store_id}/orders/batch" "What a till sold while it was cut off" Till
        Carries::Body("BatchIn"), &[], (200, "BatchOut"), &[Code::StoreNotFound];
    Get "/api/stores/{store_id}/oversold" "Sales for which there was no stock" Till
        Carries::Nothing, OVERSOLD, (200, "OversoldListOut"), STOCK;
    Post "/api/stores/{store_id}/oversold/{sale_id}/resolve" "Note how such a sale was resolved" Till
        Carries::Body("ResolveIn"), &[], (200, "object"), &[Code::NotFound, Code::StoreNotFound];
    Get "/api/stores/{store_id}/invalid-sales" "Sales of tills that could not be taken" Till
        Carries::Nothing, OVERSOLD, (200, "InvalidSaleListOut"), STOCK;
    Post "/api/stores/{store_id}/invalid-sales/{id}/resolve" "Note how such a sale was resolved" Till
        Carries::Body("ResolveIn"), &[], (200, "object"), &[Code::NotFound, Code::StoreNotFound];
    Post "/api/stock/import" "Write stock from a CSV file, all of it or nothing" Admin / StockWrite
        Carries::Csv, &[("dryRun", "boolean")], (201, "ImportOut"), &[];
    Get "/api/stock/import/{id}" "How far a file was written" Admin / StockWrite
        Carries::Nothing, &[], (200, "ImportOut"), &[Code::NotFound, Code::DatabaseUnavailable];
    Get "/api/stock/export" "Every stock level as CSV" Admin / StockWrite
        Carries::Nothing, &[], (200, "csv"), &[Code::DatabaseUnavailable];
    Get "/api/works" "Campaign items, newest first" Anyone
        Carries::Nothing, PAGE, (200, "WorkListOut"), &[Code::DatabaseUnavailable];
    Post "/api/works" "Make a campaign item" Admin / CouponsWrite
        Carries::Body("WorkIn"), &[], (201, "WorkOut"), &[Code::WorkTitleTaken];
    Put "/api/works/{id}" "Write a campaign item" Admin / CouponsWrite
        Carries::Body("WorkIn"), &[], (200, "WorkOut"), &[Code::WorkNotFound, Code::WorkTitleTaken];
    Delete "/api/works/{id}" "Take a campaign item away; what was drawn for it stays" Admin
        / CouponsWrite
        Carries::Nothing, &[], (204, ""), &[Code::WorkNotFound, Code::DatabaseUnavailable];
    Get "/api/coupons" "Campaigns with what is left of them, newest first" Anyone
        Carries::Nothing, PAGE, (200, "CouponListOut"), READ;
    Post "/api/coupons" "Make a campaign, or one user's coupon" Admin / CouponsWrite
        Carries::Body("CouponIn"), &[], (201, "CouponOut"), &[Code::NotFound, Code::CouponCodeTaken];
    Get "/api/coupons/mine" "Own codes, newest first" User / CouponsWrite
        Carries::Nothing, PAGE, (200, "OwnCouponListOut"), &[Code::DatabaseUnavailable];
    Post "/api/coupons/{id}/issue" "Draw a coupon, first come first served" User / CouponsWrite
        Carries::Maybe("IssueIn"), &[], (201, "IssueOut"), ISSUE;
    Post "/api/v1/points/earn" "Give a user points; MySQL has it when it answers" Admin
        / PointsWrite
        Carries::Body("PointsIn"), &[], (201, "PointOut"), &[Code::NotFound, Code::StockLimitReached];
    Post "/api/v1/points/use" "Use own points; MySQL has it when it answers" User / PointsWrite
        Carries::Body("PointsIn"), &[], (201, "PointOut"), &[Code::UserMismatch, Code::InsufficientPoints];
    Post "/api/v1/points/{id}/cancel" "Take a movement of points back, once; MySQL has it when it answers" User
        / PointsWrite
        Carries::Maybe("NothingIn"), &[], (200, "PointOut"), CANCEL_POINTS;
    Get "/api/v1/points/users/{user_id}/balance" "Own points" User / PointsWrite
        Carries::Nothing, &[], (200, "BalanceOut"), &[Code::NotFound, Code::DatabaseUnavailable];
    Get "/api/v1/points/users/{user_id}/history" "Every movement of own points, newest first" User
        / PointsWrite
        Carries::Nothing, PAGE, (200, "PointListOut"), &[Code::NotFound, Code::DatabaseUnavailable];
    Get "/api/v1/points/users/{user_id}/reports" "What own points did per day" User / PointsWrite
        Carries::Nothing, DAYS, (200, "PointReportListOut"), &[Code::NotFound, Code::DatabaseUnavailable];
    Post "/api/v2/points/earn" "Give a user points; Redis first" Admin / PointsWrite
        Carries::Body("PointsIn"), &[], (201, "PointOut"), &[Code::NotFound, Code::StockLimitReached];
    Post "/api/v2/points/use" "Use own points; Redis first" User / PointsWrite
        Carries::Body("PointsIn"), &[], (201, "PointOut"), &[Code::UserMismatch, Code::InsufficientPoints];
    Post "/api/v2/points/{id}/cancel" "Take a movement of points back, once; Redis first" User
        / PointsWrite
        Carries::Maybe("NothingIn"), &[], (200, "PointOut"), CANCEL_POINTS;
    Get "/api/v2/points/users/{user_id}/balance" "Own points" User / PointsWrite
        Carries::Nothing, &[], (200, "BalanceOut"), &[Code::NotFound, Code::DatabaseUnavailable];
    Get "/api/v2/points/users/{user_id}/history" "Every movement of own points, newest first" User
        / PointsWrite
        Carries::Nothing, PAGE, (200, "PointListOut"), &[Code::NotFound, Code::DatabaseUnavailable];
    Get "/api/v2/points/users/{user_id}/reports" "What own points did per day" User / PointsWrite
        Carries::Nothing, DAYS, (200, "PointReportListOut"), &[Code::NotFound, Code::DatabaseUnavailable];
    Post "/api/auth/signup" "Sign up" Anyone
        Carries::Body("SignUpIn"), &[], (201, "SignedUpOut"), &[Code::EmailTaken];
    Post "/api/token" "Log in: an access and a refresh token" Anyone
        Carries::Body("CredentialsIn"), &[], (200, "TokensOut"), &[Code::InvalidCredentials];
    Post "/api/token/refresh" "The next tokens; a refresh token holds once" Anyone
        Carries::Body("RefreshIn"), &[], (200, "TokensOut"), &[Code::RefreshTokenInvalid];
    Get "/api/me" "Who the caller is" User
        Carries::Nothing, &[], (200, "UserOut"), &[Code::DatabaseUnavailable];
    Post "/api/me/password" "Choose another password; all tokens and sessions end" User
        Carries::Body("PasswordIn"), &[], (200, "TokensOut"), &[Code::InvalidCredentials];
    Post "/api/auth/logout-everywhere" "End all tokens and sessions of the caller" User
        Carries::Nothing, &[], (204, ""), &[Code::DatabaseUnavailable];
    Get "/api/users" "All users, by id" Admin
        Carries::Nothing, PAGE, (200, "UserListOut"), &[Code::DatabaseUnavailable];
    Patch "/api/users/{id}" "Give a user another role; their tokens and sessions end" Admin
        Carries::Body("RoleIn"), &[], (200, "UserOut"), &[Code::NotFound];
    Delete "/api/users/{id}" "Delete a user; their orders stay" Admin
        Carries::Nothing, &[], (204, ""), &[Code::NotFound, Code::DatabaseUnavailable];
    Post "/account/signup" "The sign-up page's form" Anyone
        Carries::Form("SignUpForm"), &[], (303, ""), &[Code::CrossSiteRequest, Code::EmailTaken];
    Post "/account/login" "The login page's form: begins a session" Anyone
        Carries::Form("LoginForm"), &[], (303, ""), &[Code::CrossSiteRequest, Code::InvalidCredentials];
    Post "/account/logout" "Ends the session" User
        Carries::Nothing, &[], (303, ""), &[Code::DatabaseUnavailable];
    Get "/api/keys" "Keys of the shop's back ends, newest first" Admin
        Carries::Nothing, PAGE, (200, "ServiceKeyListOut"), &[Code::DatabaseUnavailable];
    Post "/api/keys" "Make a key of a back end; the answer tells its secret, once" Admin
        Carries::Body("ServiceKeyIn"), &[], (201, "ServiceKeyOut"), &[Code::ServiceKeyLimitReached];
    Delete "/api/keys/{id}" "Take a key back" Admin
        Carries::Nothing, &[], (204, ""), &[Code::ServiceKeyNotFound, Code::DatabaseUnavailable];
    Get "/api/webhooks" "Every webhook" Admin
        Carries::Nothing, &[], (200, "WebhookListOut"), &[Code::DatabaseUnavailable];
    Post "/api/webhooks" "Tell another system of every change of stock from now on" Admin
        Carries::Body("WebhookIn"), &[], (201, "WebhookOut"), &[Code::WebhookLimitReached];
    Get "/api/webhooks/{id}" "One webhook" Admin
        Carries::Nothing, &[], (200, "WebhookOut"), &[Code::WebhookNotFound, Code::DatabaseUnavailable];
    Put "/api/webhooks/{id}" "Write a webhook" Admin
        Carries::Body("WebhookIn"), &[], (200, "WebhookOut"), &[Code::WebhookNotFound];
    Patch "/api/webhooks/{id}" "Change, pause or resume a webhook" Admin
        Carries::Body("WebhookIn"), &[], (200, "WebhookOut"), &[Code::WebhookNotFound];
    Delete "/api/webhooks/{id}" "Remove a webhook and its log" Admin
        Carries::Nothing, &[], (204, ""), &[Code::WebhookNotFound, Code::DatabaseUnavailable];
    Get "/api/webhooks/{id}/deliveries" "What was sent, newest first" Admin
        Carries::Nothing, DELIVERIES, (200, "DeliveryListOut"), &[Code::WebhookNotFound, Code::DatabaseUnavailable];
    Post "/api/webhooks/{id}/deliveries/{delivery_id}/resend" "Send a batch once more" Admin
        Carries::Nothing, &[], (202, ""), &[Code::WebhookNotFound, Code::DatabaseUnavailable];
    Get "/api/events/levels" "The latest levels as server-sent events" User / EventsRead
        Carries::Nothing, &[("productId", "ids"), ("couponId", "ids")], (200, "events"), &[];
    Put "/api/ops/selling" "Stop or resume all selling" Admin
        Carries::Body("Selling"), &[], (200, "SellingDone"), &[];
    Get "/api/ops/status" "How the ledger is: epoch, lag, drift, the last verification, jobs" Admin
        / MetricsRead
        Carries::Nothing, &[], (200, "StatusOut"), &[Code::DatabaseUnavailable];
    Get "/api/ops/checks" "What each verify and reconcile found, newest first" Admin
        Carries::Nothing, PAGE, (200, "CheckListOut"), &[Code::DatabaseUnavailable];
    Post "/api/ops/verify" "Verify the ledger; the checks show what it finds" Admin
        Carries::Maybe("VerifyIn"), &[], (202, "object"), &[Code::RequestInProgress];
    Get "/api/ops/dead-letters" "Entries whose tables could not be written, newest first" Admin
        Carries::Nothing, PAGE, (200, "DeadLetterListOut"), &[Code::DatabaseUnavailable];
    Post "/api/ops/dead-letters/{position}/retry" "Write an entry's tables again" Admin
        Carries::Nothing, &[], (200, "DeadLetterOut"), &[Code::NotFound, Code::DeadLetterStays, Code::RequestInProgress, Code::DatabaseUnavailable];
    Get "/api/ops/quarantine" "Accounts whose postings do not chain, the oldest first" Admin
        Carries::Nothing, &[], (200, "QuarantinedListOut"), &[Code::DatabaseUnavailable];
    Post "/api/ops/quarantine/{account}/release" "End an account's quarantine" Admin
        Carries::Maybe("Release"), &[], (200, "ReleasedOut"), &[Code::NotFound, Code::QuarantineStays, Code::DatabaseUnavailable, Code::Fenced];
    Get "/api/ops/audit-log" "Who did what, newest first" Admin
        Carries::Nothing, PAGE, (200, "AuditLogOut"), &[Code::DatabaseUnavailable];
    Get "/api/openapi.json" "This document" Anyone
        Carries::Nothing, &[], (200, "object"), &[];
    Get "/livez" "The process answers" Anyone
        Carries::Nothing, &[], (200, "object"), &[];
    Get "/readyz" "Orders can be taken" Anyone
        Carries::Nothing, &[], (200, "Ready"), &[];
    Get "/metrics" "Prometheus' text format; by setting only for admins" Anyone / MetricsRead
        Carries::Nothing, &[], (200, "text"), &[Code::Unauthorized, Code::Forbidden];
}
