//! `create-admin`: creates a person who may write the catalog, such as the first one.

use std::io::{BufRead, stdin};

use clap::Args;
use sqlx::MySqlPool;
use stock_common::config::{ADMIN_VARIABLES, Config};
use stock_domain::user::{Email, Password, Role};
use stock_mysql::people::audit_log::{self, Action, Event};
use stock_mysql::people::users::{self, NewUser};

use super::{Failure, open_database, output};
use crate::passwords::{Passwords, Ticket};

#[derive(Debug, Args)]
pub(super) struct CreateAdminArgs {
    /// Their e-mail address
    #[arg(long, value_parser = Email::new, required_unless_present = "from_env")]
    email: Option<Email>,
    /// Takes address and password from the environment (`STOCK_ADMIN_EMAIL`,
    /// `STOCK_ADMIN_PASSWORD`), and does nothing when neither is set or the account exists
    #[arg(long, conflicts_with = "email")]
    from_env: bool,
    /// Their name
    #[arg(long, default_value = "")]
    name: String,
}

pub(super) async fn run(config: &Config, args: &CreateAdminArgs) -> Result<bool, Failure> {
    match &args.email {
        Some(email) => {
            let password = password_of_stdin()?;
            let pool = open_database(config, false).await?;
            match create(&pool, args, email, password).await? {
                true => Ok(true),
                false => Err("there is an account with this address".into()),
            }
        }
        None => from_environment(config, args).await,
    }
}

/// Reads the password from the first line of stdin, because other users can see arguments and
/// variables.
fn password_of_stdin() -> Result<Password, Failure> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    let password = Password::choose(line.trim_end_matches(['\r', '\n']));
    Ok(password.map_err(|weak| format!("{weak} (it is read from stdin)"))?)
}

/// Creates the admin whom the environment names, as a container's first job does.
async fn from_environment(config: &Config, args: &CreateAdminArgs) -> Result<bool, Failure> {
    let [email_name, password_name] = ADMIN_VARIABLES;
    let value = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (email, password) = (value(email_name), value(password_name));
    let (Some(email), password) = (email, password.as_deref()) else {
        return match password {
            Some(_) => Err(format!("{email_name} is missing").into()),
            None => {
                output::say(&format!("{email_name} is not set: no admin was created"));
                Ok(true)
            }
        };
    };
    let email = Email::new(&email).map_err(|error| format!("{email_name}: {error}"))?;
    let pool = open_database(config, false).await?;
    if let Some((known, _)) = users::find_by_email(&pool, &email).await? {
        let role = known.role.as_str();
        let address = email.as_str();
        output::say(&format!(
            "{address} has an account already, with the role {role}"
        ));
        return Ok(true);
    }
    let password = password.ok_or_else(|| format!("{password_name} is missing"))?;
    let password = Password::choose(password).map_err(|weak| format!("{password_name}: {weak}"))?;
    if !create(&pool, args, &email, password).await? {
        output::say("another process has created the account");
    }
    Ok(true)
}

/// Creates an admin; `false` when the address has an account.
async fn create(
    pool: &MySqlPool,
    args: &CreateAdminArgs,
    email: &Email,
    password: Password,
) -> Result<bool, Failure> {
    let password_hash = Passwords::new(1).hash(password, Ticket::OWN).await?;
    let user = NewUser {
        email,
        name: &args.name,
        role: Role::Admin,
        password_hash: &password_hash,
    };
    let Some(id) = users::insert(pool, &user).await? else {
        return Ok(false);
    };
    let event = Event {
        action: Action::RoleChanged,
        actor: None,
        subject: &format!("user:{id} is admin"),
        address: "command line",
        request_id: "",
    };
    audit_log::insert(pool, &event).await?;
    output::say(&format!("{} is admin, user {id}", email.as_str()));
    Ok(true)
}
