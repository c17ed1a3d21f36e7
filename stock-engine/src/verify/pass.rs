//! A pass over a stretch of the journal, window by window, for all shards together.
//!
//! Each window reads some entries in the order of their positions, and every row of every table
//! that one of its positions names. It compares both ways: each entry has its rows, and each row
//! has an entry. The positions of all shards are mixed, so one pass reads each row once, however
//! many shards there are.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::MySqlPool;
use stock_common::id::{Position, Span};
use stock_domain::account::Account;
use stock_domain::journal::{Entry, Kind};
use stock_domain::points;
use stock_domain::posting::Posted;
use stock_domain::shard_state::ShardState;
use stock_mysql::archives::{self, Reached};
use stock_mysql::journal;
use stock_mysql::record::{Rows, owned};
use stock_redis::Ledger;

use super::entries::{StoredEntry, decode, stored};
use super::late::Window;
use super::rows::{Row, TABLES};
use super::tally::Tally;
use super::told::told;
use super::{Difference, Report, VerifyError, again, kept};

/// Entries compared at once.
const WINDOW: u32 = 2_000;
/// Beyond this number of differences, nothing is looked at again.
const LOOKED_AT_MAX: usize = 100;

/// How far a pass is on a shard.
#[derive(Debug, Clone)]
pub(super) struct Course {
    /// The shard as it was when the pass began. Entries after its watermark are not looked at.
    pub(super) state: ShardState,
    /// When MySQL settled that watermark, as MySQL prints it.
    pub(super) settled_at: String,
    /// The last entry that was archived.
    pub(super) archived: Reached,
    /// The last entry that was compared.
    pub(super) done: Reached,
    /// Whether selling was open after the last entry that switched it.
    pub(super) selling: Option<bool>,
    /// The epoch that began last.
    pub(super) epoch: Option<String>,
}

impl Course {
    /// Whether an entry is settled, and not archived.
    pub(super) fn has(&self, position: Position) -> bool {
        position > self.archived.position && position <= self.state.watermark
    }
}

impl Course {
    /// The difference if entries are missing after the last one that was compared.
    pub(super) fn missing(&self) -> Option<Difference> {
        let (done, state) = (self.done, &self.state);
        let wanted = (state.number, state.watermark);
        let text = format!(
            "ends with entry {} at {}, and is settled up to {} at {}",
            done.number, done.position, wanted.0, wanted.1
        );
        let is_right = (done.number, done.position) == wanted;
        (!is_right).then(|| Difference::new("journal", state.shard, text))
    }

    /// Compares the shard's rows on selling and on the epoch with the last entries that set them.
    pub(super) fn switched(&self) -> Vec<Difference> {
        let state = &self.state;
        let mut found = Vec::new();
        if let Some(selling) = self.selling.filter(|selling| *selling != state.selling) {
            let text = format!("selling is {}, its entries say {selling}", state.selling);
            found.push(Difference::new("shards", state.shard, text));
        }
        let epoch = self.epoch.as_ref();
        if let Some(epoch) = epoch.filter(|epoch| **epoch != state.epoch) {
            let text = format!("is {}, the last one that began is {epoch}", state.epoch);
            found.push(Difference::new("epochs", state.shard, text));
        }
        found
    }
}

/// The courses of all shards, by shard.
pub(super) type Courses = BTreeMap<u64, Course>;

/// Where a pass begins on every shard: after a position.
pub(super) async fn courses(
    pool: &MySqlPool,
    states: &[(ShardState, String)],
    after: Position,
) -> Result<Courses, sqlx::Error> {
    let mut courses = Courses::new();
    for (state, settled_at) in states {
        let archived = archives::reached(pool, state.shard).await?;
        let next = Position::new(after.get().saturating_add(1));
        let before = journal::last_before(pool, state.shard, next).await?;
        let done = before.unwrap_or_default().max(archived);
        courses.insert(
            state.shard,
            Course {
                state: state.clone(),
                settled_at: settled_at.clone(),
                archived,
                done: done.min(Reached {
                    number: state.number,
                    position: state.watermark,
                }),
                selling: None,
                epoch: None,
            },
        );
    }
    Ok(courses)
}

/// A pass that is under way.
pub(super) struct Pass<'a> {
    pub(super) pool: &'a MySqlPool,
    pub(super) ledger: &'a Ledger,
    pub(super) courses: Courses,
    /// The counts of everything that ended, in a full run or in a round.
    pub(super) tally: Option<Tally>,
    /// Orders that were taken back and have no row, with the state that their dead letters should
    /// have.
    pub(super) rowless: HashMap<Position, &'static str>,
}

/// The outcome of a step of a pass.
pub(super) struct Step {
    /// The position up to which everything is compared.
    pub(super) at: Position,
    /// The number of entries that were compared.
    pub(super) entries: u64,
    /// Whether nothing differs.
    pub(super) is_right: bool,
}

/// The content of one window.
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    pub(super) found: Vec<Difference>,
    pub(super) rows: Rows,
    pub(super) stored: Vec<Vec<Row>>,
    /// Entries whose own tables could not be written.
    pub(super) dead: HashSet<Position>,
}

impl Pass<'_> {
    /// Compares the next window after one position and up to another.
    pub(super) async fn step(
        &mut self,
        span: Span,
        report: &mut Report,
    ) -> Result<Step, VerifyError> {
        let page = stored(self.pool, span, WINDOW).await?;
        let is_last = page.len() < WINDOW as usize;
        let last = page.last().map(|entry| entry.position);
        let at = last.filter(|_| !is_last).unwrap_or(span.upto);
        let entries = page.len() as u64;
        let look = self.settled_look(page, Span { upto: at, ..span }, report);
        let (found, courses) = Box::pin(look).await?;
        let is_right = found.is_empty();
        report.add(found);
        self.courses = courses;
        Ok(Step {
            at,
            entries,
            is_right,
        })
    }

    /// Looks at a window several times, and keeps the differences that every look finds.
    async fn settled_look(
        &mut self,
        page: Vec<StoredEntry>,
        span: Span,
        report: &Report,
    ) -> Result<(Vec<Difference>, Courses), VerifyError> {
        let before = self.tally.clone();
        let (mut found, mut courses) = Box::pin(self.look(page, span)).await?;
        for _ in 1..again::LOOKS {
            if found.is_empty() || report.differences.len() > LOOKED_AT_MAX {
                break;
            }
            again::settle(self.pool, self.ledger).await;
            let page = stored(self.pool, span, u32::MAX).await?;
            self.tally.clone_from(&before);
            let (found_again, moved) = Box::pin(self.look(page, span)).await?;
            again::keep(&mut found, &found_again);
            courses = moved;
        }
        Ok((found, courses))
    }

    async fn look(
        &mut self,
        page: Vec<StoredEntry>,
        span: Span,
    ) -> Result<(Vec<Difference>, Courses), VerifyError> {
        let (postings, stored) = self.read(span).await?;
        let mut courses = self.courses.clone();
        let mut read = decode(page, postings, &mut courses);
        read.stored = stored;
        read.dead = dead(&read.stored);
        read.gather();
        for (table, (told, stored)) in TABLES
            .iter()
            .zip(told(&read.rows).into_iter().zip(&read.stored))
        {
            read.found.extend(table.compare(told, stored));
        }
        read.found.extend(opened(self.pool, &read.entries).await?);
        let window = Window {
            pool: self.pool,
            courses: &courses,
            read: &read,
        };
        let late = window
            .compare(self.tally.as_mut(), &mut self.rowless)
            .await?;
        read.found.extend(late);
        read.found
            .extend(kept::differing(self.pool, self.ledger, &read.entries).await?);
        // A row of a shard that does not exist is reported with the journal's own row. A row that
        // is not settled is not looked at.
        Ok((read.found, courses))
    }

    /// Reads every settled posting and row that a position of the window names.
    async fn read(
        &self,
        span: Span,
    ) -> Result<(Vec<(Position, Posted)>, Vec<Vec<Row>>), sqlx::Error> {
        let [
            orders,
            lines,
            reservations,
            checkouts,
            checkout_lines,
            payments,
            changes,
            buyers,
            offline,
            issues,
            points,
            branches,
            owned,
            letters,
        ] = TABLES.map(|table| table.between(self.pool, span));
        let postings = async {
            let mut connection = self.pool.acquire().await?;
            let first = Position::new(span.after.get() + 1);
            journal::postings_between(&mut connection, first, span.upto).await
        };
        let first = async { tokio::try_join!(postings, orders, lines, reservations, offline) };
        let second = async { tokio::try_join!(issues, points, branches, owned, letters) };
        let third =
            async { tokio::try_join!(checkouts, checkout_lines, payments, changes, buyers) };
        let (first, second, third) = tokio::try_join!(first, second, third)?;
        let mut postings = first.0;
        postings.retain(|(at, _)| self.has(*at));
        let mut stored = vec![
            first.1, first.2, first.3, third.0, third.1, third.2, third.3, third.4, first.4,
            second.0, second.1, second.2, second.3, second.4,
        ];
        for rows in &mut stored {
            rows.retain(|row| self.has(row.at));
        }
        Ok((postings, stored))
    }

    /// Whether rows of a position are looked at: the position is settled and not archived, or its
    /// shard does not exist.
    fn has(&self, position: Position) -> bool {
        let course = self.courses.get(&position.shard());
        course.is_none_or(|course| course.has(position))
    }
}

impl Read {
    /// Gathers the rows that the entries write.
    fn gather(&mut self) {
        for entry in &self.entries {
            if !self.dead.contains(&entry.position) {
                if let Err(error) = self.rows.add(entry) {
                    let text = format!("its body cannot be read: {error}");
                    self.found
                        .push(Difference::new("journal", entry.position, text));
                }
                continue;
            }
            // A dead letter has written only its effects on other rows.
            self.rows
                .points
                .extend(points::transactions(entry).unwrap_or_default());
            self.rows.owned.extend(owned(entry));
            let mut own = Rows::default();
            if entry.kind == Kind::OrderPlaced && own.add(entry).is_ok() {
                self.rows.ordered.extend(own.ordered);
                self.rows.bought.extend(own.bought);
                self.rows.payments.extend(own.payments);
            }
        }
    }
}

/// Entries whose own tables could not be written, and that nobody has resolved since.
fn dead(stored: &[Vec<Row>]) -> HashSet<Position> {
    let letters = stored.last().into_iter().flatten();
    let letters = letters.filter(|row| row.late(1) != Some("RESOLVED"));
    letters.map(|row| row.at).collect()
}

/// Checks that each account that an entry opened is there, or was archived with its sale.
async fn opened(pool: &MySqlPool, entries: &[Entry]) -> Result<Vec<Difference>, sqlx::Error> {
    let posted = entries.iter().flat_map(|entry| &entry.postings);
    let opened: Vec<Account> = posted
        .filter(|posted| posted.seq == 1)
        .map(|posted| posted.account)
        .collect();
    let missing = super::accounts::missing(pool, &opened).await?;
    let missing = missing.into_iter();
    Ok(missing
        .map(|account| {
            let text = "has postings, and is not there".to_owned();
            Difference::new("accounts", account, text)
        })
        .collect())
}
