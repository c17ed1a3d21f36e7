//! The audit log: handlers note each action with its actor and address.

use std::sync::Arc;

use stock_common::id::UserId;
use stock_mysql::people::audit_log::{self, Action, Event};

use super::origin::Origin;
use crate::app::App;

/// Writes a line without waiting for MySQL.
///
/// The client may have gone, and MySQL may be away when selling must stop. The action has already
/// happened, so a line that MySQL does not take goes to the log of the process.
pub fn note(app: &Arc<App>, origin: &Origin, action: Action, actor: Option<UserId>, subject: &str) {
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
