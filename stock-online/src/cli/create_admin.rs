//! `create-admin`: creates a person who may write the catalog, such as the first one.

use std::io::{BufRead, stdin};

use clap::Args;
use stock_common::config::Config;
use stock_domain::user::{Email, Password, Role};
use stock_mysql::people::audit_log::{self, Action, Event};
use stock_mysql::people::users::{self, NewUser};

use super::{Failure, open_database, output};
use crate::passwords::{Passwords, Ticket};

#[derive(Debug, Args)]
pub(super) struct CreateAdminArgs {
    /// Their e-mail address
    #[arg(long, value_parser = Email::new)]
    email: Email,
    /// Their name
    #[arg(long, default_value = "")]
    name: String,
}

/// Reads the password from the first line of stdin, because other users can see arguments and
/// variables.
pub(super) async fn run(config: &Config, args: &CreateAdminArgs) -> Result<bool, Failure> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    let password = Password::choose(line.trim_end_matches(['\r', '\n']))
        .map_err(|weak| format!("{weak} (it is read from stdin)"))?;
    let pool = open_database(config, false).await?;
    let password_hash = Passwords::new(1).hash(password, Ticket::OWN).await?;
    let user = NewUser {
        email: &args.email,
        name: &args.name,
        role: Role::Admin,
        password_hash: &password_hash,
    };
    let id = users::insert(&pool, &user).await?;
    let id = id.ok_or("there is an account with this address")?;
    let event = Event {
        action: Action::RoleChanged,
        actor: None,
        subject: &format!("user:{id} is admin"),
        address: "command line",
        request_id: "",
    };
    audit_log::insert(&pool, &event).await?;
    output::say(&format!("{} is admin, user {id}", args.email.as_str()));
    Ok(true)
}
