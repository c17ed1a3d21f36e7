//! The audit log: handlers say what was done, and who asked for it from where.

use std::sync::Arc;

use stock_common::id::UserId;
use stock_mysql::people::audit_log::{self, Action, Event};

use super::origin::Origin;
use crate::app::App;

/// Writes a line, without waiting for it.
///
/// Who asked may have gone, MySQL may be away when selling must stop. What it tells of has happened already: when MySQL does not take the line, the log of the process has it.
pub fn note(
    app: &Arc<App>,
    origin: &Origin,
    action: Action,
    (actor, subject): (Option<UserId>, &str),
) {
    let (of, subject) = (Arc::clone(app), subject.to_owned());
    let (address, request_id) = (origin.address.to_string(), origin.request_id.to_string());
    app.start(async move {
        let event = Event {
            action,
            actor,
            subject: &subject,
            address: &address,
            request_id: &request_id,
        };
        if let Err(error) = audit_log::insert(&of.pool, &event).await {
            tracing::error!(
                %error,
                action = action.as_str(),
                actor = actor.map(|actor| actor.0),
                subject,
                address,
                "the audit log did not take this"
            );
        }
    });
}
