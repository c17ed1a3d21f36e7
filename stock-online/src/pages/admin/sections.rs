//! The parts of the admin's pages, one entry each: a list of the interface, its members, its calls.

use super::form::{Field, Form, Input, Place, field, form, keyed};

/// How a member is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Money,
    Time,
    /// A code, an id, an address.
    Code,
    /// A status, a kind, yes or no.
    Status,
}

impl Kind {
    /// How its cells are set.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Number | Self::Money => "number",
            Self::Time => "time",
            Self::Text | Self::Code | Self::Status => "",
        }
    }
}

/// A column of a list.
#[derive(Debug)]
pub(super) struct Column {
    /// The member; `field-` and it is the id of its heading.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Where a cell leads; `{name}` is the object's member.
    pub(super) link: Option<&'static str>,
}

/// A filter of a list: its name in the page, and what it is in the list's query.
type Filter = (&'static str, (&'static str, &'static str));

/// A part.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name in the path; `admin-` and it is the id of its title.
    pub(super) slug: &'static str,
    /// Its list; `{of}` is the object whose list it is.
    pub(super) list: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) filters: &'static [Filter],
    /// What can be done at all.
    pub(super) forms: &'static [Form],
    /// What can be done with a row.
    pub(super) row_forms: &'static [Form],
    /// What its list can be had as.
    pub(super) download: Option<&'static str>,
}

impl Section {
    /// Whether its list belongs to one object, which leads to it.
    pub(super) fn is_of_one(&self) -> bool {
        self.list.contains("{of}")
    }
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        link: None,
    }
}

const fn link(name: &'static str, kind: Kind, link: &'static str) -> Column {
    Column {
        name,
        kind,
        link: Some(link),
    }
}

const fn section(slug: &'static str, list: &'static str, columns: &'static [Column]) -> Section {
    Section {
        slug,
        list,
        columns,
        filters: &[],
        forms: &[],
        row_forms: &[],
        download: None,
    }
}

const STATUSES: Input = Input::Choice(&["ACTIVE", "SOLD_OUT", "END_OF_SALE", "INACTIVE"]);
const TEXT: Input = Input::Text;
const NUMBER: Input = Input::Number;

const LOCATION: Field = field("locationId", NUMBER).optional();
const REASON: Field = field("reason", TEXT);

const INBOUND: Form = keyed(
    "inbound",
    "POST /api/products/stock/inbound",
    &[
        field("productId", NUMBER).prefilled(),
        LOCATION,
        field("quantity", NUMBER),
        REASON,
    ],
);
const ADJUST: Form = keyed(
    "adjust",
    "POST /api/products/{id}/stock",
    &[
        field("id", NUMBER).at(Place::Path),
        field("change", NUMBER),
        LOCATION,
        field("expectedAvailable", NUMBER).optional(),
        REASON.optional(),
    ],
);
const IMPORT: Form = keyed(
    "import",
    "POST /api/stock/import",
    &[
        field("file", Input::File).at(Place::Whole),
        field("dryRun", Input::Choice(&["true", "false"])).at(Place::Query),
    ],
)
.answering();

/// What there is of one product, and what can be done with it.
pub(super) const PRODUCT: Section = Section {
    row_forms: &[
        form(
            "product-edit",
            "PATCH /api/products/{id}",
            &[
                field("name", TEXT).prefilled(),
                field("description", TEXT).prefilled().optional(),
                field("price", NUMBER).prefilled(),
                field("status", STATUSES).prefilled(),
                field("minStockLevel", NUMBER).prefilled().optional(),
                field("reorderPoint", NUMBER).prefilled().optional(),
            ],
        ),
        keyed(
            "inbound",
            "POST /api/products/stock/inbound",
            &[
                field("productId", NUMBER).prefilled_with("id"),
                LOCATION,
                field("quantity", NUMBER),
                REASON,
            ],
        ),
        keyed(
            "adjust",
            "POST /api/products/{id}/stock",
            &[
                field("change", NUMBER),
                LOCATION,
                field("expectedAvailable", NUMBER).optional(),
                REASON.optional(),
            ],
        ),
        form(
            "discount",
            "POST /api/products/{id}/discounts",
            &[
                field("percentage", Input::Decimal),
                field("startsAt", Input::Time).optional(),
                field("endsAt", Input::Time).optional(),
            ],
        ),
        form("sale", "POST /api/products/{id}/sales", SALE),
        form(
            "sale-delete",
            "DELETE /api/products/{id}/sales/{saleId}",
            &[],
        )
        .grave()
        .only("state", &["UPCOMING", "RUNNING", "OVER"]),
        form("product-delete", "DELETE /api/products/{id}", &[]).grave(),
    ],
    ..section(
        "product",
        "/api/products",
        &[
            column("id", Kind::Code),
            column("status", Kind::Status),
            column("price", Kind::Money),
            column("unitPrice", Kind::Money),
            column("isSoldOut", Kind::Status),
            column("minStockLevel", Kind::Number),
            column("reorderPoint", Kind::Number),
            column("state", Kind::Status),
            column("startsAt", Kind::Time),
            column("endsAt", Kind::Time),
            column("salePrice", Kind::Money),
            column("limitPerUser", Kind::Number),
            column("createdAt", Kind::Time),
            column("updatedAt", Kind::Time),
        ],
    )
};

const SALE: &[Field] = &[
    field("startsAt", Input::Time),
    field("endsAt", Input::Time),
    field("price", NUMBER).optional(),
    field("limitPerUser", NUMBER).optional(),
];

/// The switch of the first page.
pub(super) const SELLING: &[Form] = &[
    form(
        "selling-stop",
        "PUT /api/ops/selling",
        &[field("open", Input::FixedFlag("false"))],
    )
    .grave()
    .only("selling", &["true"]),
    form(
        "selling-resume",
        "PUT /api/ops/selling",
        &[field("open", Input::FixedFlag("true"))],
    )
    .only("selling", &["false"]),
    form("verify", "POST /api/ops/verify", &[]),
];

/// Every part, in the order of the navigation; those of one object are reached from it.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        filters: &[
            ("active", ("status", "ACTIVE")),
            ("sold-out", ("status", "SOLD_OUT")),
            ("inactive", ("status", "INACTIVE")),
        ],
        forms: &[keyed(
            "product-new",
            "POST /api/products",
            &[
                field("name", TEXT),
                field("description", TEXT).optional(),
                field("price", NUMBER),
                field("status", STATUSES),
                field("stock", NUMBER).optional(),
                field("minStockLevel", NUMBER).optional(),
                field("reorderPoint", NUMBER).optional(),
            ],
        )],
        ..section(
            "products",
            "/api/redis/products",
            &[
                link("id", Kind::Code, "/admin/products/{id}"),
                link("name", Kind::Text, "/admin/products/{id}"),
                column("price", Kind::Money),
                column("unitPrice", Kind::Money),
                column("status", Kind::Status),
                column("isSoldOut", Kind::Status),
                column("stockVersion", Kind::Number),
            ],
        )
    },
    Section {
        filters: &[("low", ("low", "true")), ("reorder", ("reorder", "true"))],
        forms: &[INBOUND, ADJUST, IMPORT],
        download: Some("/api/stock/export"),
        ..section(
            "stock",
            "/api/products/stock/available",
            &[
                link("productId", Kind::Code, "/admin/products/{productId}"),
                column("locationId", Kind::Code),
                link("available", Kind::Number, "/admin/movements?of={productId}"),
                column("reserved", Kind::Number),
                column("physical", Kind::Number),
                column("minStockLevel", Kind::Number),
                column("isLow", Kind::Status),
                column("reorderPoint", Kind::Number),
                column("needsReorder", Kind::Status),
                column("updatedAt", Kind::Time),
            ],
        )
    },
    section(
        "movements",
        "/api/products/{of}/stock/movements",
        &[
            column("createdAt", Kind::Time),
            column("kind", Kind::Status),
            column("locationId", Kind::Code),
            column("delta", Kind::Number),
            column("balanceAfter", Kind::Number),
            column("cause", Kind::Status),
            column("reference", Kind::Code),
            column("actorId", Kind::Code),
            column("reason", Kind::Text),
            column("seq", Kind::Number),
        ],
    ),
    Section {
        row_forms: &[form(
            "sale-delete",
            "DELETE /api/products/{productId}/sales/{saleId}",
            &[],
        )
        .grave()],
        forms: &[form(
            "sale",
            "POST /api/products/{id}/sales",
            &[
                field("id", NUMBER).at(Place::Path),
                field("startsAt", Input::Time),
                field("endsAt", Input::Time),
                field("price", NUMBER).optional(),
                field("limitPerUser", NUMBER).optional(),
            ],
        )],
        ..section(
            "sales",
            "/api/sales",
            &[
                column("saleId", Kind::Code),
                link("productName", Kind::Text, "/admin/products/{productId}"),
                column("state", Kind::Status),
                column("startsAt", Kind::Time),
                column("endsAt", Kind::Time),
                column("price", Kind::Money),
                column("limitPerUser", Kind::Number),
                column("governs", Kind::Status),
            ],
        )
    },
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
                column("key", Kind::Code),
                column("totalAmount", Kind::Money),
                column("state", Kind::Status),
                column("note", Kind::Text),
            ],
        )
    },
    Section {
        forms: &[keyed(
            "coupon-new",
            "POST /api/coupons",
            &[
                field("name", TEXT),
                field("discountAmount", NUMBER).optional(),
                field("discountRate", Input::Decimal).optional(),
                field("count", NUMBER).optional(),
                field("validFrom", Input::Time).optional(),
                field("validTo", Input::Time).optional(),
                field("code", TEXT).optional(),
                field("userId", NUMBER).optional(),
            ],
        )],
        ..section(
            "coupons",
            "/api/coupons",
            &[
                column("id", Kind::Code),
                column("name", Kind::Text),
                column("discountAmount", Kind::Money),
                column("discountRate", Kind::Number),
                column("count", Kind::Number),
                column("remaining", Kind::Number),
                column("validFrom", Kind::Time),
                column("validTo", Kind::Time),
                column("code", Kind::Code),
                column("userId", Kind::Code),
            ],
        )
    },
    Section {
        forms: &[form("work-new", "POST /api/works", &[field("title", TEXT)])],
        row_forms: &[
            form(
                "work-edit",
                "PUT /api/works/{id}",
                &[field("title", TEXT).prefilled()],
            ),
            form("work-delete", "DELETE /api/works/{id}", &[]).grave(),
        ],
        ..section(
            "works",
            "/api/works",
            &[column("id", Kind::Code), column("title", Kind::Text)],
        )
    },
    Section {
        row_forms: &[
            form(
                "user-role",
                "PATCH /api/users/{id}",
                &[
                    field("role", Input::Choice(&["user", "store", "admin"])).prefilled(),
                    field("storeId", NUMBER).prefilled().optional(),
                ],
            ),
            keyed(
                "points-earn",
                "POST /api/v2/points/earn",
                &[
                    field("userId", NUMBER).prefilled_with("id"),
                    field("amount", NUMBER),
                    field("description", TEXT),
                ],
            ),
            form("user-delete", "DELETE /api/users/{id}", &[]).grave(),
        ],
        ..section(
            "users",
            "/api/users",
            &[
                link("id", Kind::Code, "/admin/points?of={id}"),
                column("email", Kind::Code),
                column("name", Kind::Text),
                column("role", Kind::Status),
                column("storeId", Kind::Code),
            ],
        )
    },
    Section {
        row_forms: &[
            keyed("point-cancel", "POST /api/v2/points/{id}/cancel", &[])
                .grave()
                .only("type", &["EARN", "USED"]),
        ],
        ..section(
            "points",
            "/api/v2/points/users/{of}/history",
            &[
                column("createdAt", Kind::Time),
                column("id", Kind::Code),
                column("type", Kind::Status),
                column("amount", Kind::Number),
                column("balanceSnapshot", Kind::Number),
                column("description", Kind::Text),
                column("orderId", Kind::Code),
            ],
        )
    },
    Section {
        row_forms: &[form(
            "dead-letter-retry",
            "POST /api/ops/dead-letters/{position}/retry",
            &[],
        )
        .only("state", &["OPEN", "COMPENSATED", "CANCELLED", "KEPT"])],
        ..section(
            "dead-letters",
            "/api/ops/dead-letters",
            &[
                column("position", Kind::Code),
                column("createdAt", Kind::Time),
                column("kind", Kind::Status),
                column("reason", Kind::Text),
                column("attempts", Kind::Number),
                column("state", Kind::Status),
            ],
        )
    },
    Section {
        forms: &[form(
            "verify",
            "POST /api/ops/verify",
            &[field("full", Input::Check)],
        )],
        ..section(
            "checks",
            "/api/ops/checks",
            &[
                column("endedAt", Kind::Time),
                column("kind", Kind::Status),
                column("differences", Kind::Number),
                column("corrected", Kind::Number),
                column("tookMs", Kind::Number),
                column("report", Kind::Code),
            ],
        )
    },
    Section {
        forms: &[form(
            "webhook-new",
            "POST /api/webhooks",
            &[
                field("url", TEXT),
                field("events", Input::List).optional(),
                field("secret", TEXT).optional(),
            ],
        )
        .answering()],
        row_forms: &[
            form(
                "webhook-pause",
                "PATCH /api/webhooks/{id}",
                &[field("state", Input::Fixed("PAUSED"))],
            )
            .only("state", &["ACTIVE"]),
            form(
                "webhook-resume",
                "PATCH /api/webhooks/{id}",
                &[field("state", Input::Fixed("ACTIVE"))],
            )
            .only("state", &["PAUSED", "DISABLED"]),
            form("webhook-delete", "DELETE /api/webhooks/{id}", &[]).grave(),
        ],
        ..section(
            "webhooks",
            "/api/webhooks",
            &[
                link("id", Kind::Code, "/admin/deliveries?of={id}"),
                column("url", Kind::Code),
                column("events", Kind::Text),
                column("state", Kind::Status),
                column("sentNumber", Kind::Number),
                column("createdAt", Kind::Time),
            ],
        )
    },
    Section {
        filters: &[
            ("pending", ("state", "PENDING")),
            ("failed", ("state", "FAILED")),
        ],
        row_forms: &[form(
            "delivery-resend",
            "POST /api/webhooks/{of}/deliveries/{id}/resend",
            &[],
        )],
        ..section(
            "deliveries",
            "/api/webhooks/{of}/deliveries",
            &[
                column("id", Kind::Code),
                column("createdAt", Kind::Time),
                column("state", Kind::Status),
                column("attempts", Kind::Number),
                column("lastStatus", Kind::Code),
                column("lastError", Kind::Text),
                column("firstNumber", Kind::Number),
                column("lastNumber", Kind::Number),
                column("nextAttemptAt", Kind::Time),
            ],
        )
    },
    section(
        "audit-log",
        "/api/ops/audit-log",
        &[
            column("at", Kind::Time),
            column("action", Kind::Status),
            column("actorId", Kind::Code),
            column("subject", Kind::Text),
            column("address", Kind::Code),
            column("requestId", Kind::Code),
        ],
    ),
];

const STORE: &[Field] = &[
    field("storeId", NUMBER).optional(),
    field("name", TEXT),
    field("latitude", Input::Decimal),
    field("longitude", Input::Decimal),
    field("sharesOnlineStock", Input::Check),
];
