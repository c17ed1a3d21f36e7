//! Orders, reservations, checkouts, payments and stores.

use super::{Kind, NUMBER, Section, TEXT, column, link, section};
use crate::pages::admin::form::{Field, Input, field, form, keyed};

const STORE: &[Field] = &[
    field("storeId", NUMBER).optional(),
    field("name", TEXT),
    field("latitude", Input::Decimal),
    field("longitude", Input::Decimal),
    field("sharesOnlineStock", Input::Check),
];

pub(super) const SECTIONS: &[Section] = &[
    Section {
        filters: &[
            ("pending", ("status", "ORDER_PENDING")),
            ("success", ("status", "SUCCESS")),
            ("cancelled", ("status", "CANCEL")),
        ],
        row_forms: &[keyed(
            "order-cancel",
            "PATCH /api/redis/orders/{orderId}/cancel",
            &[],
        )
        .grave()
        .only("orderStatus", &["ORDER_PENDING", "SUCCESS"])],
        ..section(
            "orders",
            "/api/orders",
            &[
                link("orderId", Kind::Code, "/orders/{orderId}"),
                column("createdAt", Kind::Time),
                column("orderProductInfos", Kind::Text),
                column("deliveryType", Kind::Status),
                column("storeId", Kind::Code),
                column("totalAmount", Kind::Money),
                column("orderStatus", Kind::Status),
            ],
        )
    },
    Section {
        filters: &[
            ("pending", ("status", "PENDING")),
            ("expired", ("status", "EXPIRED")),
        ],
        row_forms: &[
            keyed(
                "reservation-confirm",
                "POST /api/reservations/{reservationId}/confirm",
                &[],
            )
            .only("status", &["PENDING"]),
            keyed(
                "reservation-cancel",
                "POST /api/reservations/{reservationId}/cancel",
                &[],
            )
            .only("status", &["PENDING"]),
            keyed(
                "reservation-force",
                "POST /api/reservations/{reservationId}/cancel",
                &[field("force", Input::FixedFlag("true"))],
            )
            .grave()
            .only("status", &["CONFIRMED"]),
        ],
        ..section(
            "reservations",
            "/api/reservations",
            &[
                column("reservationId", Kind::Code),
                link("userId", Kind::Code, "/admin/points?of={userId}"),
                link("productId", Kind::Code, "/admin/products/{productId}"),
                column("locationId", Kind::Code),
                column("quantity", Kind::Number),
                column("status", Kind::Status),
                column("createdAt", Kind::Time),
                column("expiresAt", Kind::Time),
            ],
        )
    },
    Section {
        filters: &[
            ("open", ("status", "OPEN")),
            ("expired", ("status", "EXPIRED")),
        ],
        row_forms: &[
            keyed(
                "checkout-confirm",
                "POST /api/checkouts/{checkoutId}/confirm",
                &[field("paymentId", TEXT), field("amount", NUMBER)],
            )
            .only("status", &["OPEN", "EXPIRED"]),
            keyed(
                "checkout-cancel",
                "POST /api/checkouts/{checkoutId}/cancel",
                &[],
            )
            .only("status", &["OPEN"]),
        ],
        ..section(
            "checkouts",
            "/api/checkouts",
            &[
                link("checkoutId", Kind::Code, "/checkouts/{checkoutId}"),
                link("userId", Kind::Code, "/admin/points?of={userId}"),
                column("orderProductInfos", Kind::Text),
                column("totalAmount", Kind::Money),
                column("status", Kind::Status),
                column("createdAt", Kind::Time),
                column("expiresAt", Kind::Time),
                column("orderId", Kind::Code),
            ],
        )
    },
    Section {
        filters: &[("refund-due", ("refundDue", "true"))],
        ..section(
            "payments",
            "/api/payments",
            &[
                column("paymentId", Kind::Code),
                link("checkoutId", Kind::Code, "/checkouts/{checkoutId}"),
                column("amount", Kind::Money),
                column("outcome", Kind::Status),
                column("orderId", Kind::Code),
                column("createdAt", Kind::Time),
            ],
        )
    },
    Section {
        forms: &[form("store-new", "POST /api/stores", STORE)],
        row_forms: &[form(
            "store-edit",
            "PUT /api/stores/{storeId}",
            &[
                field("name", TEXT).prefilled(),
                field("latitude", Input::Decimal).prefilled(),
                field("longitude", Input::Decimal).prefilled(),
                field("sharesOnlineStock", Input::Check).prefilled(),
            ],
        )],
        ..section(
            "stores",
            "/api/stores",
            &[
                link("storeId", Kind::Code, "/admin/oversold?of={storeId}"),
                column("name", Kind::Text),
                column("latitude", Kind::Text),
                column("longitude", Kind::Text),
                column("sharesOnlineStock", Kind::Status),
            ],
        )
    },
    Section {
        beside: &["invalid-sales"],
        row_forms: &[form(
            "oversold-resolve",
            "POST /api/stores/{of}/oversold/{saleId}/resolve",
            &[field("note", TEXT)],
        )
        .only("state", &["OVERSOLD"])],
        ..section(
            "oversold",
            "/api/stores/{of}/oversold",
            &[
                column("saleId", Kind::Code),
                column("soldAt", Kind::Time),
                column("deviceId", Kind::Code),
                column("key", Kind::Code),
                column("totalAmount", Kind::Money),
                column("state", Kind::Status),
                column("note", Kind::Text),
            ],
        )
    },
    Section {
        beside: &["oversold"],
        row_forms: &[form(
            "invalid-sale-resolve",
            "POST /api/stores/{of}/invalid-sales/{id}/resolve",
            &[field("note", TEXT)],
        )
        .only("state", &["INVALID"])],
        ..section(
            "invalid-sales",
            "/api/stores/{of}/invalid-sales",
            &[
                column("receivedAt", Kind::Time),
                column("deviceId", Kind::Code),
                column("key", Kind::Code),
                column("code", Kind::Code),
                column("detail", Kind::Text),
                column("text", Kind::Text),
                column("state", Kind::Status),
                column("note", Kind::Text),
            ],
        )
    },
];
