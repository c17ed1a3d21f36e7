//! Calling `lua/decide.lua`: the order of KEYS and ARGV, and the decoder of what it returns.
//!
//! This file and the script's header describe the same form, and nothing else knows it.

use std::collections::{BTreeMap, HashMap};

use redis::{Cmd, Value};
use stock_common::id::Position;
use stock_domain::account::{Account, Book};
use stock_domain::journal::PostedLevels;
use stock_domain::request::Release;
use stock_domain::transition::Transition;
use stock_domain::verdict::{Accepted, Refusal, Replay, Verdict};

use super::keys::{Keys, Records};
use super::records::{RecordKey, RecordName};
use super::scripts::SCRIPTS;
use crate::encoded_request::{EncodedRequest, held_units};

/// The arguments that count for every request of a batch.
#[derive(Debug)]
pub struct BatchHead<'a> {
    /// The epoch that the caller verified.
    pub epoch: &'a str,
    /// Unsettled entries allowed, and further ones allowed to reversals.
    pub lag_entries_max: (u64, u64),
    /// How long acceptances and refusals are remembered, in ms.
    pub remember_ms: (u64, u64),
    /// Redis' time in Unix ms after which the batch comes too late.
    pub deadline_ms: u64,
}

/// The reply to a batch.
#[derive(Debug)]
pub struct BatchReply {
    /// Redis' time in Unix ms.
    pub time_ms: u64,
    /// Entries that MySQL has not settled.
    pub lag_entries: u64,
    /// One verdict per request, in order.
    pub verdicts: Vec<Verdict>,
}

/// Accounts and keys of a batch by their index, from 1 as in Lua. The accounts with keys of their
/// own come first, then those in books.
#[derive(Default)]
struct Index {
    own: Vec<Account>,
    books: BTreeMap<Book, Vec<Account>>,
    account_at: HashMap<Account, usize>,
    keys: Vec<RecordKey>,
    key_at: HashMap<RecordKey, usize>,
}

impl Index {
    fn add_account(&mut self, account: Account) {
        if self.account_at.insert(account, 0).is_none() {
            match account.book() {
                None => self.own.push(account),
                Some(book) => self.books.entry(book).or_default().push(account),
            }
        }
    }

    fn add_key(&mut self, key: RecordKey) {
        if !self.key_at.contains_key(&key) {
            self.keys.push(key);
            self.key_at.insert(key, self.keys.len());
        }
    }

    fn of<'a>(batch: impl Iterator<Item = &'a EncodedRequest>) -> Self {
        let mut index = Self::default();
        for EncodedRequest {
            request, record, ..
        } in batch
        {
            let posted = request.draft.postings.iter().map(|posting| posting.account);
            let closed = request.draft.closings.iter().map(|closing| closing.account);
            let expected = request.expected.iter().map(|(account, _)| *account);
            posted
                .chain(closed)
                .chain(expected)
                .for_each(|account| index.add_account(account));
            if let Some(record) = record {
                index.add_key(record.key);
            }
        }
        let all = index.own.iter().chain(index.books.values().flatten());
        for (at, account) in all.enumerate() {
            index.account_at.insert(*account, at + 1);
        }
        index
    }
}

/// Builds the call for a batch.
pub fn encode<'a, I>(keys: &Keys, head: &BatchHead<'_>, batch: I) -> Cmd
where
    I: Iterator<Item = &'a EncodedRequest> + Clone,
{
    let index = Index::of(batch.clone());
    let mut cmd = Cmd::new();
    cmd.arg("EVALSHA").arg(&SCRIPTS.decide.sha);
    encode_keys(&mut cmd, keys, &index);
    cmd.arg(head.epoch)
        .arg(keys.shard())
        .arg(index.own.len())
        .arg(index.books.len())
        .arg(index.keys.len());
    cmd.arg(head.lag_entries_max.0).arg(head.lag_entries_max.1);
    cmd.arg(head.remember_ms.0).arg(head.remember_ms.1);
    let transitions = batch
        .clone()
        .flat_map(|sealed| &sealed.request.draft.transitions);
    let fields = batch.clone().flat_map(|of| held_units(&of.request));
    cmd.arg(keys.levels())
        .arg(batch.clone().count())
        .arg(head.deadline_ms)
        .arg(transitions.clone().count())
        .arg(fields.clone().count());
    for account in &index.own {
        if account.kind.is_announced() {
            cmd.arg(account.to_string());
        } else {
            cmd.arg("");
        }
    }
    for (book, accounts) in &index.books {
        cmd.arg(u8::from(book.kind().is_announced()))
            .arg(accounts.len());
        for account in accounts {
            cmd.arg(book.field(*account));
        }
    }
    for key in &index.keys {
        cmd.arg(key);
    }
    for transition in transitions {
        cmd.arg(&transition.id);
    }
    for held in fields {
        cmd.arg(&held.field);
    }
    for request in batch {
        encode_request(&mut cmd, &index, request);
    }
    cmd
}

fn encode_keys(cmd: &mut Cmd, keys: &Keys, index: &Index) {
    const PRIMED: usize = 9;
    cmd.arg(PRIMED + index.own.len() + index.books.len());
    cmd.arg(keys.epoch())
        .arg(keys.journal())
        .arg(keys.states())
        .arg(keys.deadlines());
    for records in Records::ALL {
        cmd.arg(keys.records(records, 0))
            .arg(keys.records(records, 1));
    }
    cmd.arg(keys.held_units());
    for account in &index.own {
        cmd.arg(keys.account(*account));
    }
    for book in index.books.keys() {
        cmd.arg(keys.book(*book));
    }
}

fn encode_request(cmd: &mut Cmd, index: &Index, sealed: &EncodedRequest) {
    let EncodedRequest {
        request,
        shape,
        record,
        payload,
    } = sealed;
    let draft = &request.draft;
    let account_at = |account: &Account| index.account_at.get(account).copied().unwrap_or_default();
    cmd.arg(shape);
    if let Some(RecordName { key, print }) = record {
        cmd.arg(index.key_at.get(key).copied().unwrap_or_default())
            .arg(print);
    }
    if let Some(deadline) = request.deadline_ms {
        cmd.arg(deadline);
    }
    if !draft.transitions.is_empty() {
        let states = draft.transitions.iter();
        let states = states.map(|Transition { from, to, .. }| format!("{from}\n{to}\n"));
        cmd.arg(states.collect::<String>());
    }
    if !draft.closings.is_empty() {
        cmd.arg(draft.closings.len());
        for closing in &draft.closings {
            let how = match (closing.closed, closing.only_if_opened) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => 2,
            };
            cmd.arg(account_at(&closing.account)).arg(how);
        }
    }
    if let Some(refuse) = &request.refuse {
        cmd.arg(refuse);
    }
    if let Some(open) = draft.selling {
        cmd.arg(u8::from(open));
    }
    if let Some(hold) = &request.hold {
        cmd.arg(&hold.text);
    }
    if let Some(release) = &request.release {
        cmd.arg(&release.member).arg(release.until_ms);
    }
    if let Some(extended_ms) = request.release.as_ref().and_then(Release::extended_ms) {
        cmd.arg(extended_ms);
    }
    if let Some((account, balance)) = &request.expected {
        cmd.arg(account_at(account)).arg(*balance);
    }
    if let Some(before) = request.late_check {
        cmd.arg(before + 1);
    }
    for posting in &draft.postings {
        cmd.arg(account_at(&posting.account));
    }
    if request.refuse.is_none() {
        cmd.arg(payload);
    }
}

/// Decodes the script's reply; `None` when it has another form.
pub fn decode<'a, I>(reply: &Value, mut batch: I) -> Option<BatchReply>
where
    I: ExactSizeIterator<Item = &'a EncodedRequest>,
{
    let Value::Array(parts) = reply else {
        return None;
    };
    let [Value::Int(time), Value::Int(lag), first, answers @ ..] = parts.as_slice() else {
        return None;
    };
    let mut next = match text(first)?.split_once(' ') {
        Some((id, number)) => Some((Position::from_stream_id(id)?, number.parse().ok()?)),
        None => None,
    };
    let (time_ms, lag_entries) = (u64::try_from(*time).ok()?, u64::try_from(*lag).unwrap_or(0));
    let verdicts = match answers {
        [only] if text(only)? == "R 10" => {
            batch.map(|_| Verdict::Refused(Refusal::Fenced)).collect()
        }
        _ if answers.len() == batch.len() => answers
            .iter()
            .map(|a| decode_one(text(a)?, batch.next()?, &mut next))
            .collect::<Option<_>>()?,
        _ => return None,
    };
    Some(BatchReply {
        time_ms,
        lag_entries,
        verdicts,
    })
}

fn text(value: &Value) -> Option<&str> {
    if let Value::BulkString(bytes) = value {
        return std::str::from_utf8(bytes).ok();
    }
    None
}

/// Decodes one answer. `next` is the position and the number of the next accepted entry.
fn decode_one(
    answer: &str,
    request: &EncodedRequest,
    next: &mut Option<(Position, u64)>,
) -> Option<Verdict> {
    if answer.is_empty() || answer.starts_with(|first: char| first.is_ascii_digit()) {
        let (position, number) = (*next)?;
        *next = Some((position.plus(1), number.checked_add(1)?));
        return Some(Verdict::Accepted(Accepted {
            position,
            number,
            postings: PostedLevels::parse(answer)?.join(&request.request.draft.postings)?,
            is_whole: request.request.draft.branches.is_empty(),
        }));
    }
    let (kind, rest) = answer.split_once(' ')?;
    Some(match kind {
        "P" => Verdict::Replayed(Replay::Accepted(Position::from_stream_id(rest)?)),
        "Q" => Verdict::Replayed(Replay::Refused(Refusal::parse(rest)?)),
        "R" => Verdict::Refused(Refusal::parse(rest)?),
        _ => return None,
    })
}
