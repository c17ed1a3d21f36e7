//! The sections that keep the service alive: dead letters, quarantine, checks, webhooks, the audit
//! log.

use super::{Kind, Section, TEXT, column, link, section};
use crate::pages::admin::form::{Form, Input, field, form};

/// The forms of the overview: the selling switch, and `verify`.
pub(in crate::pages::admin) const SELLING: &[Form] = &[
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
    form("verify", "POST /api/ops/verify", &[]).beginning(),
];

pub(super) const SECTIONS: &[Section] = &[
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
        row_forms: &[form(
            "quarantine-release",
            "POST /api/ops/quarantine/{account}/release",
            &[field("force", Input::Check)],
        )
        .grave()],
        ..section(
            "quarantine",
            "/api/ops/quarantine",
            &[
                column("account", Kind::Code),
                column("createdAt", Kind::Time),
                column("position", Kind::Code),
                column("reason", Kind::Text),
                column("kept", Kind::Number),
            ],
        )
    },
    Section {
        forms: &[form(
            "verify",
            "POST /api/ops/verify",
            &[field("full", Input::Check)],
        )
        .beginning()],
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
