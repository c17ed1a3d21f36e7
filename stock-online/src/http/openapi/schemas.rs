//! Schemas of bodies, by name.

use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, ComponentsBuilder};

use super::text;
use crate::http::code::Code;
use crate::http::stores::{self, invalid, offline, till};
use crate::http::{
    accounts, audit_log, checkouts, coupons, dead_letters, discounts, imports, ledger_checks, ops,
    orders, payments, points, products, quarantine, reservations, sales, service_keys, stock,
    users, webhooks, works,
};
use crate::readiness;

/// Every schema, and the security scheme of callers.
#[expect(clippy::too_many_lines, reason = "every form in one table")]
pub(super) fn components() -> Components {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .build();
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("sfk_")
        .description(Some(
            "A key of the shop's own back end, from `POST /api/keys`. It acts for the buyer whom \
             the body (`buyer`) or the header `Stock-Buyer` names, and without one for the shop.",
        ))
        .build();
    ComponentsBuilder::new()
        .schema_from::<orders::OrderIn>()
        .schema_from::<orders::OrderBatchIn>()
        .schema_from::<orders::OrderBatchOut>()
        .schema_from::<orders::OrderResultOut>()
        .schema_from::<orders::LineIn>()
        .schema_from::<orders::LineOut<'_>>()
        .schema_from::<orders::DeliveryTypeName>()
        .schema_from::<orders::OrderStatusName>()
        .schema_from::<products::ItemOut<'_>>()
        .schema_from::<products::ProductStatusName>()
        .schema_from::<readiness::Checks>()
        .schema_from::<orders::NothingIn>()
        .schema_from::<orders::CancelIn>()
        .schema_from::<orders::ReturnIn>()
        .schema_from::<orders::UnitsIn>()
        .schema_from::<orders::ChangeOut>()
        .schema_from::<orders::UnitsOut>()
        .schema_from::<orders::WayName>()
        .schema_from::<orders::OrderBody<'_>>()
        .schema_from::<orders::OrderListOut<'_>>()
        .schema_from::<products::ProductIn>()
        .schema_from::<products::DetailOut<'_>>()
        .schema_from::<products::ListOut<'_>>()
        .schema_from::<discounts::DiscountIn>()
        .schema_from::<discounts::DiscountOut>()
        .schema_from::<sales::SaleIn>()
        .schema_from::<sales::SaleEdit>()
        .schema_from::<sales::AvailabilityName>()
        .schema_from::<sales::SaleOut>()
        .schema_from::<sales::ListedSaleOut>()
        .schema_from::<sales::SaleListOut>()
        .schema_from::<stock::InboundIn>()
        .schema_from::<stock::InboundOut>()
        .schema_from::<stock::AdjustIn>()
        .schema_from::<stock::AdjustOut>()
        .schema_from::<stock::LevelOut>()
        .schema_from::<stock::LevelListOut>()
        .schema_from::<stock::MovementOut>()
        .schema_from::<stock::MovementListOut>()
        .schema_from::<stock::DayOut>()
        .schema_from::<stock::StatisticsOut>()
        .schema_from::<webhooks::WebhookIn>()
        .schema_from::<webhooks::WebhookOut>()
        .schema_from::<webhooks::WebhookListOut>()
        .schema_from::<webhooks::DeliveryOut>()
        .schema_from::<webhooks::DeliveryListOut>()
        .schema_from::<imports::ImportOut>()
        .schema_from::<imports::FailureOut>()
        .schema_from::<reservations::ReserveIn>()
        .schema_from::<reservations::CancelIn>()
        .schema_from::<reservations::ReservationStatusName>()
        .schema_from::<reservations::ReservationOut>()
        .schema_from::<reservations::ReservationListOut>()
        .schema_from::<checkouts::CheckoutIn>()
        .schema_from::<checkouts::ExtendIn>()
        .schema_from::<checkouts::ConfirmIn>()
        .schema_from::<checkouts::wire::CheckoutStatusName>()
        .schema_from::<checkouts::wire::CheckoutOut<'_>>()
        .schema_from::<checkouts::wire::ListOut<'_>>()
        .schema_from::<checkouts::wire::ConfirmedOut>()
        .schema_from::<payments::EventIn>()
        .schema_from::<payments::EventDataIn>()
        .schema_from::<payments::EventOut>()
        .schema_from::<payments::PaymentOut>()
        .schema_from::<payments::PaymentOutcomeName>()
        .schema_from::<payments::PaymentListOut>()
        .schema_from::<stores::StoreIn>()
        .schema_from::<stores::StoreOut<'_>>()
        .schema_from::<stores::StoreListOut<'_>>()
        .schema_from::<stores::StoreProductOut>()
        .schema_from::<stores::StoreProductListOut>()
        .schema_from::<stores::StoreStockOut>()
        .schema_from::<stores::NearbyOut>()
        .schema_from::<stores::NearbyListOut>()
        .schema_from::<till::TillOrderIn>()
        .schema_from::<offline::BatchIn>()
        .schema_from::<offline::OfflineSaleIn>()
        .schema_from::<offline::ResultOut>()
        .schema_from::<offline::BatchOut>()
        .schema_from::<offline::ResolveIn>()
        .schema_from::<offline::OversoldOut>()
        .schema_from::<offline::OversoldListOut>()
        .schema_from::<offline::SoldLineOut>()
        .schema_from::<invalid::InvalidSaleOut>()
        .schema_from::<invalid::InvalidSaleListOut>()
        .schema_from::<works::WorkIn>()
        .schema_from::<works::WorkOut>()
        .schema_from::<works::WorkListOut>()
        .schema_from::<coupons::CouponIn>()
        .schema_from::<coupons::IssueIn>()
        .schema_from::<coupons::WorthOut<'_>>()
        .schema_from::<coupons::CouponOut<'_>>()
        .schema_from::<coupons::CouponListOut<'_>>()
        .schema_from::<coupons::IssueOut<'_>>()
        .schema_from::<coupons::OwnCouponOut<'_>>()
        .schema_from::<coupons::OwnCouponListOut<'_>>()
        .schema_from::<points::PointsIn>()
        .schema_from::<points::PointTypeName>()
        .schema_from::<points::PointOut>()
        .schema_from::<points::PointListOut>()
        .schema_from::<points::BalanceOut>()
        .schema_from::<points::PointReportOut>()
        .schema_from::<points::PointReportListOut>()
        .schema_from::<accounts::SignUpIn>()
        .schema_from::<accounts::CredentialsIn>()
        .schema_from::<accounts::RefreshIn>()
        .schema_from::<accounts::PasswordIn>()
        .schema_from::<users::RoleIn>()
        .schema_from::<users::RoleName>()
        .schema_from::<accounts::SignedUpOut<'_>>()
        .schema_from::<accounts::TokensOut>()
        .schema_from::<accounts::UserOut<'_>>()
        .schema_from::<users::UserListOut<'_>>()
        .schema_from::<accounts::SignUpForm>()
        .schema_from::<accounts::LoginForm>()
        .schema_from::<service_keys::ServiceKeyIn>()
        .schema_from::<service_keys::ServiceKeyOut>()
        .schema_from::<service_keys::ServiceKeyListOut>()
        .schema_from::<service_keys::ScopeName>()
        .schema_from::<ops::Selling>()
        .schema_from::<ops::SellingDone>()
        .schema_from::<ops::ShardSelling>()
        .schema_from::<ledger_checks::StatusOut>()
        .schema_from::<ledger_checks::JobOut>()
        .schema_from::<ledger_checks::CheckOut>()
        .schema_from::<ledger_checks::CheckListOut>()
        .schema_from::<ledger_checks::VerifyIn>()
        .schema_from::<dead_letters::DeadLetterOut>()
        .schema_from::<dead_letters::DeadLetterListOut>()
        .schema_from::<quarantine::QuarantinedOut>()
        .schema_from::<quarantine::QuarantinedListOut>()
        .schema_from::<quarantine::Release>()
        .schema_from::<quarantine::ReleasedOut>()
        .schema_from::<audit_log::AuditLineOut>()
        .schema_from::<audit_log::AuditLogOut>()
        .schema_from::<readiness::Ready>()
        .schema_from::<readiness::SettingOut>()
        .schema("Problem", problem())
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .security_scheme("serviceKey", SecurityScheme::Http(key))
        .build()
}

/// The schema of every problem (RFC 9457).
fn problem() -> ObjectBuilder {
    let number = || ObjectBuilder::new().schema_type(Type::Integer);
    let names: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    // Open, so that a client that was made from this document takes a code of tomorrow.
    let code = AnyOfBuilder::new()
        .item(text().enum_values(Some(names)))
        .item(text());
    let place = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("pointer", text())
        .property("line", number())
        .property("message", text());
    let mut object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("status", number())
        .property("code", code)
        .property("errors", ArrayBuilder::new().items(place));
    for name in [
        "type",
        "title",
        "detail",
        "requestId",
        "member",
        "scope",
        "checkoutStatus",
    ] {
        object = object.property(name, text());
    }
    for name in [
        "productId",
        "available",
        "expected",
        "remaining",
        "saleId",
        "taken",
        "errorCount",
    ] {
        object = object.property(name, number());
    }
    for name in ["type", "title", "status", "detail", "code", "requestId"] {
        object = object.required(name);
    }
    object
}
