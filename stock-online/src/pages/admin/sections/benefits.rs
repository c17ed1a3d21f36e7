//! Coupons, campaign items, people and their points.

use super::{Kind, NUMBER, Section, TEXT, column, link, section};
use crate::pages::admin::form::{Input, field, form, keyed};

pub(super) const SECTIONS: &[Section] = &[
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
];
