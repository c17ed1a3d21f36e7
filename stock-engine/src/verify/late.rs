//! Verifies what later entries say about rows: that an order was taken back, a reservation is over,
//! a code was used, a branch has ended.
//!
//! From an entry to its row is one lookup. From a row to its entry leads a column where there is
//! one (the order that took a reservation or used a code). Where there is none, a full pass counts
//! both sides ([`super::tally`]).

use std::collections::{HashMap, HashSet};

use sqlx::{AssertSqlSafe, MySqlPool, Row as _};
use stock_common::id::Position;
use stock_domain::checkout::{CheckoutExtended, CheckoutStatus, extended_state_id};
use stock_domain::hold::HoldEnded;
use stock_domain::journal::Kind;
use stock_domain::order::OrderStatus;
use stock_domain::reservation::ReservationStatus;

use super::Difference;
use super::pass::{Courses, Read};
use super::rows::{BRANCHES, CHECKOUTS, ORDERS, RESERVATIONS, Row, Text};
use super::tally::{Tally, Thing};

/// A window of a pass, with all that was read of it.
pub(super) struct Window<'a> {
    pub(super) pool: &'a MySqlPool,
    pub(super) courses: &'a Courses,
    pub(super) read: &'a Read,
}

/// Rows by their id, each with some columns.
pub(super) type Found = HashMap<Position, Vec<Text>>;

/// Reads columns of the rows of some ids.
pub(super) async fn find(
    pool: &MySqlPool,
    table: &str,
    id: &str,
    columns: &str,
    ids: impl IntoIterator<Item = u64>,
) -> Result<Found, sqlx::Error> {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    let mut found = Found::with_capacity(ids.len());
    for part in ids.chunks(1_000) {
        let list = part.join(", ");
        let text = format!("SELECT {id}, {columns} FROM {table} WHERE {id} IN ({list})");
        for row in sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(pool).await? {
            let values: Result<Vec<Text>, _> = (1..row.len())
                .map(|index| row.try_get_unchecked(index))
                .collect();
            let id: String = row.try_get_unchecked(0)?;
            found.insert(id.parse().unwrap_or_default(), values?);
        }
    }
    Ok(found)
}

/// One column of a row that was found.
pub(super) fn value(found: &Found, id: Position, index: usize) -> Option<&str> {
    found.get(&id)?.get(index)?.as_deref()
}

impl Window<'_> {
    /// Compares everything of the window. `rowless` receives the orders that were taken back and
    /// have no row.
    pub(super) async fn compare(
        &self,
        mut tally: Option<&mut Tally>,
        rowless: &mut HashMap<Position, &'static str>,
    ) -> Result<Vec<Difference>, sqlx::Error> {
        let mut found = self.rows(tally.as_deref_mut());
        found.extend(self.reversals(tally.as_deref_mut(), rowless).await?);
        found.extend(self.ends(tally.as_deref_mut()).await?);
        found.extend(self.taken().await?);
        found.extend(self.checkouts(tally.as_deref_mut()).await?);
        found.extend(self.branches(tally).await?);
        found.extend(self.codes().await?);
        found.extend(self.issues().await?);
        found.extend(self.points().await?);
        found.extend(self.opened().await?);
        found.extend(self.imported().await?);
        found.extend(self.letters());
        Ok(found)
    }

    pub(super) fn stored(&self, table: &super::rows::Table) -> &[Row] {
        let tables = super::rows::TABLES.iter().zip(&self.read.stored);
        let mut own = tables.filter(|(of, _)| of.name == table.name);
        own.next().map_or(&[], |(_, rows)| rows.as_slice())
    }

    /// Checks each row by itself: a state and its time go together. The state is counted if the
    /// entry that states it belongs to the pass.
    fn rows(&self, mut tally: Option<&mut Tally>) -> Vec<Difference> {
        let mut found = Vec::new();
        let ended = [
            (Thing::Order, &ORDERS, 0, "SUCCESS", Some(1)),
            (Thing::Reservation, &RESERVATIONS, 0, "PENDING", Some(2)),
            (Thing::Checkout, &CHECKOUTS, 0, "OPEN", Some(2)),
            (Thing::Branch, &BRANCHES, 0, "HELD", None),
        ];
        for (thing, table, state, begun, since) in ended {
            for row in self.stored(table) {
                let is_ended = row.late(state) != Some(begun);
                let time = since.map_or(row.late(2), |since| row.late(since));
                if since.is_some() && is_ended != time.is_some() {
                    let text = format!("is {:?} since {time:?}", row.late(state));
                    found.push(Difference::new(table.name, row.at, text));
                }
                // A hold names the order that took it.
                let is_named = thing.is_hold() && row.late(1).is_some();
                let course = self.courses.get(&row.at.shard());
                let settled = course.map(|course| course.settled_at.as_str());
                let is_settled = time <= settled;
                if let Some(tally) = tally.as_deref_mut()
                    && is_ended
                    && !is_named
                    && is_settled
                {
                    tally.row(thing, row.at, &state_of(thing, row));
                }
                if thing == Thing::Branch
                    && (row.late(0) == Some("CONFIRMED")) != row.late(1).is_some()
                {
                    let text = format!("is {:?} for entry {:?}", row.late(0), row.late(1));
                    found.push(Difference::new(table.name, row.at, text));
                }
            }
        }
        found
    }

    fn is_counted(&self, id: Position) -> bool {
        let course = self.courses.get(&id.shard());
        course.is_some_and(|course| id > course.archived.position)
    }

    /// Checks that each order that was taken back says so.
    async fn reversals(
        &self,
        mut tally: Option<&mut Tally>,
        rowless: &mut HashMap<Position, &'static str>,
    ) -> Result<Vec<Difference>, sqlx::Error> {
        let rows = &self.read.rows;
        let cancelled = rows.cancelled.iter().map(|id| (*id, OrderStatus::Cancel));
        let failed = rows.failed.iter().map(|id| (*id, OrderStatus::Fail));
        let reversed: Vec<(Position, OrderStatus)> = cancelled.chain(failed).collect();
        let ids = || reversed.iter().map(|(id, _)| id.get());
        let stored = find(self.pool, "orders", "id", "status", ids()).await?;
        let lacking = ids().filter(|id| !stored.contains_key(&Position::new(*id)));
        let letters = find(self.pool, "dead_letters", "journal_id", "state", lacking).await?;
        let mut found = Vec::new();
        for (id, expected) in reversed {
            let is = value(&stored, id, 0);
            if let Some(is) = is {
                if self.is_counted(id)
                    && let Some(tally) = tally.as_deref_mut()
                {
                    tally.entry(Thing::Order, id, expected.as_str());
                }
                if is != expected.as_str() {
                    let text = format!("is {is}, but an entry made it {}", expected.as_str());
                    found.push(Difference::new("orders", id, text));
                }
                continue;
            }
            let letter = match expected == OrderStatus::Fail {
                true => "COMPENSATED",
                false => "CANCELLED",
            };
            rowless.insert(id, letter);
            let is = value(&letters, id, 0);
            if is != Some(letter) {
                let text = format!("is {is:?}, but an entry made it {letter}");
                found.push(Difference::new("dead_letters", id, text));
            }
        }
        Ok(found)
    }

    /// Checks that each reservation that has ended says so. A confirmed one may have been cancelled
    /// since.
    async fn ends(&self, mut tally: Option<&mut Tally>) -> Result<Vec<Difference>, sqlx::Error> {
        use ReservationStatus::{Cancelled, Confirmed, Expired, Pending};
        let rows = &self.read.rows;
        let all = [
            (&rows.confirmed, Confirmed),
            (&rows.returned, Cancelled),
            (&rows.expired, Expired),
        ];
        let ended: Vec<(Position, ReservationStatus)> = all
            .into_iter()
            .flat_map(|(ids, status)| ids.iter().map(move |id| (*id, status)))
            .collect();
        let ids = ended.iter().map(|(id, _)| id.get());
        let stored = find(self.pool, "reservations", "id", "status", ids).await?;
        let forced = self.forced();
        let mut found = Vec::new();
        for (id, expected) in ended {
            // A dead letter has no row, and needs none.
            let Some(is) = value(&stored, id, 0).and_then(ReservationStatus::parse) else {
                continue;
            };
            if self.is_counted(id)
                && let Some(tally) = tally.as_deref_mut()
            {
                tally.entry(Thing::Reservation, id, expected.as_str());
                if expected == Cancelled && forced.contains(&id) {
                    tally.row(Thing::Reservation, id, Confirmed.as_str());
                }
            }
            let is_right = match expected {
                Confirmed => matches!(is, Confirmed | Cancelled),
                Cancelled | Expired | Pending => is == expected,
            };
            if !is_right {
                let text = format!("is {}, its end says {}", is.as_str(), expected.as_str());
                found.push(Difference::new("reservations", id, text));
            }
        }
        Ok(found)
    }

    /// Reservations that had been confirmed when they were cancelled.
    fn forced(&self) -> HashSet<Position> {
        let confirmed = ReservationStatus::Confirmed.as_str();
        let cancels = self.read.entries.iter().filter(|entry| {
            let is_forced =
                |transition: &stock_domain::transition::Transition| transition.from == confirmed;
            entry.kind == Kind::ReservationCancelled && entry.transitions.iter().any(is_forced)
        });
        let ended = cancels.filter_map(|entry| entry.body::<HoldEnded>().ok());
        ended.map(|ended| ended.hold_id).collect()
    }

    /// Checks that an order and the reservation that it took name each other.
    async fn taken(&self) -> Result<Vec<Difference>, sqlx::Error> {
        let ordered = &self.read.rows.ordered;
        let ids = ordered.iter().map(|(id, _)| id.get());
        let stored = find(self.pool, "reservations", "id", "status, order_id", ids).await?;
        let mut found = Vec::new();
        for (id, order) in ordered {
            let Some(row) = stored.get(id) else { continue };
            let order = order.to_string();
            let expected = [Some("CONFIRMED"), Some(order.as_str())];
            if !row.iter().map(Option::as_deref).eq(expected) {
                let text = format!("is {row:?}, order {order} took it");
                found.push(Difference::new("reservations", id, text));
            }
        }
        let named: Vec<(Position, Position)> = self
            .stored(&RESERVATIONS)
            .iter()
            .filter_map(|row| Some((row.at, row.late(1)?.parse().ok()?)))
            .collect();
        let orders = named.iter().map(|(_, order)| order.get());
        let orders = find(self.pool, "orders", "id", "reservation_id", orders).await?;
        let lacking = named.iter().map(|(_, order)| *order);
        let lacking = lacking.filter(|order| !orders.contains_key(order));
        let lacking = lacking.map(Position::get);
        let letters = find(self.pool, "dead_letters", "journal_id", "state", lacking).await?;
        for (id, order) in named {
            let by = value(&orders, order, 0);
            if by != Some(id.to_string().as_str()) && !letters.contains_key(&order) {
                let text = format!("says that order {order} took it, which took {by:?}");
                found.push(Difference::new("reservations", id, text));
            }
        }
        Ok(found)
    }

    /// Checks that each checkout that has ended says so, and that an order and the checkout that
    /// became it name each other.
    async fn checkouts(
        &self,
        mut tally: Option<&mut Tally>,
    ) -> Result<Vec<Difference>, sqlx::Error> {
        let rows = &self.read.rows;
        let bought = rows.bought.iter().map(|(id, ..)| id.get());
        let ended = rows.given_back.iter().map(|(id, _)| id.get());
        let columns = "status, order_id, is_late";
        let stored = find(self.pool, "checkouts", "id", columns, bought.chain(ended)).await?;
        let mut found = Vec::new();
        let mut differ = |id: Position, text: String| {
            found.push(Difference::new("checkouts", id, text));
        };
        for (id, order, is_late) in &rows.bought {
            let Some(row) = stored.get(id) else { continue };
            let (order, late) = (order.to_string(), u8::from(*is_late).to_string());
            let expected = [Some("CONFIRMED"), Some(order.as_str()), Some(late.as_str())];
            if !row.iter().map(Option::as_deref).eq(expected) {
                differ(*id, format!("is {row:?}, order {order} took it"));
            }
            // It had expired before it was paid, which its row no longer says.
            if *is_late
                && self.is_counted(*id)
                && let Some(tally) = tally.as_deref_mut()
            {
                tally.row(Thing::Checkout, *id, CheckoutStatus::Expired.as_str());
            }
        }
        for (id, status) in &rows.given_back {
            let is = value(&stored, *id, 0).and_then(CheckoutStatus::parse);
            let Some(is) = is else { continue };
            let is_after = *status == CheckoutStatus::Expired
                && matches!(is, CheckoutStatus::Confirmed | CheckoutStatus::RefundDue);
            if is != *status && !is_after {
                let text = format!("is {}, its end says {}", is.as_str(), status.as_str());
                differ(*id, text);
            }
            if !self.is_counted(*id) {
                continue;
            }
            if let Some(tally) = tally.as_deref_mut() {
                tally.entry(Thing::Checkout, *id, status.as_str());
                if *status == CheckoutStatus::RefundDue {
                    tally.row(Thing::Checkout, *id, CheckoutStatus::Expired.as_str());
                }
            }
        }
        let named: Vec<(Position, Position)> = self
            .stored(&CHECKOUTS)
            .iter()
            .filter_map(|row| Some((row.at, row.late(1)?.parse().ok()?)))
            .collect();
        let ids = named.iter().map(|(_, order)| order.get());
        let orders = find(self.pool, "payments", "id", "checkout_id, outcome", ids).await?;
        for (id, order) in named {
            let (of, checkout) = (orders.get(&order), id.to_string());
            let expected = [Some(checkout.as_str()), Some("CONFIRMED")];
            if !of.is_some_and(|of| of.iter().map(Option::as_deref).eq(expected)) {
                let text = format!("says that order {order} took it, whose payment is {of:?}");
                found.push(Difference::new("checkouts", id, text));
            }
        }
        found.extend(self.deadlines(tally));
        Ok(found)
    }

    /// Checks that the deadline of each checkout is its own, or one to which an entry moved it. The
    /// entries of an extended one are counted against its row: each moves the deadline from where
    /// the one before has left it.
    fn deadlines(&self, mut tally: Option<&mut Tally>) -> Vec<Difference> {
        let mut found = Vec::new();
        for row in self.stored(&CHECKOUTS) {
            let number = |index: usize| row.late(index).and_then(|text| text.parse::<u64>().ok());
            let ttl_ms = row.value(10).and_then(|text| text.parse::<u64>().ok());
            let own_ms = ttl_ms.map(|ttl_ms| row.at.unix_ms() + ttl_ms);
            let is_moved = number(4) != Some(0) || number(5) != Some(0);
            let is_late = number(6) == Some(1);
            let is_right = is_moved == row.late(7).is_some()
                && (is_moved || number(3) == own_ms)
                && (!is_late || row.late(1).is_some());
            if !is_right {
                let text = format!("says of its deadline and its payment {:?}", row.late);
                found.push(Difference::new("checkouts", row.at, text));
            }
            let course = self.courses.get(&row.at.shard());
            let settled = course.map(|course| course.settled_at.as_str());
            if is_moved
                && row.late(7) <= settled
                && let Some(tally) = tally.as_deref_mut()
            {
                let state = state_of(Thing::Deadline, row);
                tally.row(Thing::Deadline, row.at, &state);
            }
        }
        let moved = self.read.entries.iter();
        let moved = moved.filter(|entry| {
            entry.kind == Kind::CheckoutExtended && !self.read.dead.contains(&entry.position)
        });
        for entry in moved {
            let (Some(of), Some(tally)) =
                (entry.body::<CheckoutExtended>().ok(), tally.as_deref_mut())
            else {
                continue;
            };
            let id = extended_state_id(of.checkout_id);
            let own = entry.transitions.iter().find(|of| of.id == id);
            if !self.is_counted(of.checkout_id) {
                continue;
            }
            tally.entry(Thing::Deadline, of.checkout_id, &of.extended.state());
            if let Some(own) = own.filter(|own| !own.from.is_empty()) {
                tally.row(Thing::Deadline, of.checkout_id, &own.from);
            }
        }
        found
    }

    /// Checks that each branch that has ended says so.
    async fn branches(
        &self,
        mut tally: Option<&mut Tally>,
    ) -> Result<Vec<Difference>, sqlx::Error> {
        let ended = &self.read.rows.ended;
        let ids = ended.iter().map(|ended| ended.id.get());
        let stored = find(self.pool, "branches", "id", "state, commit_id", ids).await?;
        let mut found = Vec::new();
        for of in ended {
            let commit = of.commit.map(|entry| entry.to_string());
            let state = if commit.is_some() {
                "CONFIRMED"
            } else {
                "RELEASED"
            };
            // An archived branch has no row any more. A branch that cannot be written never had
            // one.
            let Some(row) = stored.get(&of.id) else {
                continue;
            };
            if self.is_counted(of.id)
                && let Some(tally) = tally.as_deref_mut()
            {
                let state = format!("{state} {}", commit.as_deref().unwrap_or_default());
                tally.entry(Thing::Branch, of.id, &state);
            }
            let is_right = row
                .iter()
                .map(Option::as_deref)
                .eq([Some(state), commit.as_deref()]);
            if !is_right {
                let text = format!("is {row:?}, its end says {state} {commit:?}");
                found.push(Difference::new("branches", of.id, text));
            }
        }
        Ok(found)
    }

    /// Checks that each product and coupon that was opened in the ledger says so.
    async fn opened(&self) -> Result<Vec<Difference>, sqlx::Error> {
        let rows = &self.read.rows;
        let products = rows.opened.iter().map(|id| id.0).collect::<Vec<_>>();
        let coupons = rows.coupons.iter().map(|id| id.0).collect::<Vec<_>>();
        let mut found = Vec::new();
        for (table, ids) in [("products", products), ("coupons", coupons)] {
            let stored = find(self.pool, table, "id", "opened", ids.iter().copied()).await?;
            for id in ids {
                let is = value(&stored, Position::new(id), 0);
                if is != Some("1") {
                    let text = format!("was opened in the ledger, and says {is:?}");
                    found.push(Difference::new(table, id, text));
                }
            }
        }
        Ok(found)
    }

    /// Checks that no line of a file that was written still waits.
    async fn imported(&self) -> Result<Vec<Difference>, sqlx::Error> {
        let mut found = Vec::new();
        for (import, first, last) in &self.read.rows.imported {
            let waits: Option<u64> = sqlx::query_scalar(
                "SELECT MIN(line) FROM import_rows WHERE import_id = ? AND state = 'STAGED' \
                 AND line BETWEEN ? AND ?",
            )
            .bind(import)
            .bind(first)
            .bind(last)
            .fetch_one(self.pool)
            .await?;
            found.extend(waits.map(|line| {
                let text = format!("line {line} was written, and still waits");
                Difference::new("import_rows", import, text)
            }));
        }
        Ok(found)
    }

    /// Checks that each dead letter names the kind of its entry.
    fn letters(&self) -> Vec<Difference> {
        let entries = self.read.entries.iter();
        let kinds: HashMap<Position, Kind> =
            entries.map(|entry| (entry.position, entry.kind)).collect();
        let letters = self.stored(&super::rows::LETTERS).iter();
        letters
            .filter_map(|row| {
                let kind = kinds.get(&row.at).copied();
                let is_order = kind == Some(Kind::OrderPlaced);
                // Only an order can be taken back.
                let is_possible = is_order || matches!(row.late(1), Some("KEPT" | "RESOLVED"));
                let is_right = row.late(0) == kind.map(Kind::as_str) && is_possible;
                let text = format!("is {:?} {:?}, its entry {kind:?}", row.late(0), row.late(1));
                (!is_right).then(|| Difference::new("dead_letters", row.at, text))
            })
            .collect()
    }
}

/// The state under which a row is counted.
pub(super) fn state_of(thing: Thing, row: &Row) -> String {
    let state = row.late(0).unwrap_or_default();
    match thing {
        Thing::Order | Thing::Reservation | Thing::Checkout => state.to_owned(),
        Thing::Deadline => {
            let part = |index: usize| row.late(index).unwrap_or_default();
            format!("{} {} {}", part(4), part(5), part(3))
        }
        Thing::Branch => format!("{state} {}", row.late(1).unwrap_or_default()),
    }
}
