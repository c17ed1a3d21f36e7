//! `token`: access tokens for scripts, load plans and the first curl.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::UserId;

use super::{Failure, output};
use crate::http::auth::Role;
use crate::tokens::{Caller, Tokens};

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The user that the token is for
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    user_id: u64,
    /// The role of its bearer
    #[arg(long, value_parser = role(), default_value = "user")]
    role: Role,
    /// The store of a `store` token
    #[arg(long, required_if_eq("role", "store"))]
    store_id: Option<u64>,
    /// Print this many tokens, for users N, N+1, …
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    count: u64,
    /// Print lines `userId,token`
    #[arg(long)]
    csv: bool,
    /// How long it is valid, in seconds
    #[arg(long, default_value_t = 86_400, value_parser = clap::value_parser!(i64).range(1..))]
    ttl_seconds: i64,
}

/// Reads a role, and lists all of them in the help.
pub(super) fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["user", "store", "admin"]).try_map(|text| text.parse::<Role>())
}

pub(super) fn run(config: &Config, args: &TokenArgs) -> Result<bool, Failure> {
    config.check_secret()?;
    let tokens = Tokens::new(&config.people.jwt_secret, "", None, Clock::system())?;
    for id in (args.user_id..).take(usize::try_from(args.count)?) {
        let caller = Caller {
            user: UserId(id),
            role: args.role,
            store_id: args.store_id,
        };
        let token = tokens.issue(caller, None, args.ttl_seconds)?;
        output::say(&if args.csv {
            format!("{id},{token}")
        } else {
            token
        });
    }
    Ok(true)
}
