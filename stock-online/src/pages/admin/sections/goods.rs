//! Products, stock and sales.

use super::{Kind, NUMBER, Section, TEXT, column, link, section};
use crate::pages::admin::form::{Field, Form, Input, Place, field, form, keyed};

const STATUSES: Input = Input::Choice(&["ACTIVE", "SOLD_OUT", "END_OF_SALE", "INACTIVE"]);

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

/// The data of one product, and the actions on it.
pub(in crate::pages::admin) const PRODUCT: Section = Section {
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
        keyed(
            "discount",
            "POST /api/products/{id}/discounts",
            &[
                field("percentage", Input::Decimal),
                field("startsAt", Input::Time).optional(),
                field("endsAt", Input::Time).optional(),
            ],
        ),
        keyed("sale", "POST /api/products/{id}/sales", SALE),
        keyed(
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
            column("availability", Kind::Status),
            column("createdAt", Kind::Time),
            column("updatedAt", Kind::Time),
        ],
    )
};

const AVAILABILITY: Input = Input::Choice(&["SALE_ONLY", "ALWAYS"]);

const SALE: &[Field] = &[
    field("startsAt", Input::Time),
    field("endsAt", Input::Time),
    field("price", NUMBER).optional(),
    field("limitPerUser", NUMBER).optional(),
    field("availability", AVAILABILITY),
];

/// The fields of a sale that may be changed; a field that is left empty stays as it is.
const SALE_EDIT: &[Field] = &[
    field("startsAt", Input::Time).optional(),
    field("endsAt", Input::Time).optional(),
    field("price", NUMBER).prefilled().optional(),
    field("limitPerUser", NUMBER).prefilled().optional(),
];

/// Stock at every location.
pub(in crate::pages::admin) const STOCK: Section = Section {
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
};

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
    STOCK,
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
        row_forms: &[
            keyed(
                "sale-edit",
                "PATCH /api/products/{productId}/sales/{saleId}",
                SALE_EDIT,
            )
            .only("state", &["UPCOMING", "RUNNING"]),
            keyed(
                "sale-delete",
                "DELETE /api/products/{productId}/sales/{saleId}",
                &[],
            )
            .grave(),
        ],
        forms: &[keyed(
            "sale",
            "POST /api/products/{id}/sales",
            &[
                field("id", NUMBER).at(Place::Path),
                field("startsAt", Input::Time),
                field("endsAt", Input::Time),
                field("price", NUMBER).optional(),
                field("limitPerUser", NUMBER).optional(),
                field("availability", AVAILABILITY),
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
                column("availability", Kind::Status),
                column("governs", Kind::Status),
            ],
        )
    },
];
