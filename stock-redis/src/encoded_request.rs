//! The encoded request: a request as the batcher sends it, with its payload and its shape written
//! once.

use std::iter::once;

use stock_domain::journal::DraftError;
use stock_domain::posting::Posting;
use stock_domain::request::{HeldUnits, Release, Request};

use crate::records::RecordName;

/// A request as the batcher sends it.
#[derive(Debug)]
pub struct EncodedRequest {
    /// The request itself.
    pub request: Request,
    /// The shape, which many requests have in common; see the header of `lua/decide.lua`.
    pub shape: String,
    /// The name of the record under which the answer is remembered, if the request has a key.
    pub record: Option<RecordName>,
    /// The payload, which the journal keeps.
    pub payload: Vec<u8>,
}

impl EncodedRequest {
    /// Writes payload and shape, so that the batcher only copies bytes.
    ///
    /// # Errors
    /// [`DraftError`] when a part of the draft has no JSON form.
    pub fn new(request: Request) -> Result<Self, DraftError> {
        let payload = request.draft.payload(request.idempotency.as_ref())?;
        let shape = shape(&request);
        let record = request.idempotency.as_ref().map(RecordName::of);
        Ok(Self {
            request,
            shape,
            record,
            payload,
        })
    }
}

/// The shape of a request. `lua/decide.lua` parses it once for many requests that are alike.
fn shape(request: &Request) -> String {
    // 0 is no bound.
    let (opens, closes) = request.window_ms.unwrap_or((0, 0));
    let postings = request.draft.postings.iter();
    let postings = postings.map(
        |Posting {
             delta, open, least, ..
         }| match open {
            None => format!(" {delta}"),
            Some(level) if *least == 0 => format!(" {delta}:{level}"),
            Some(level) => format!(" {delta}:{level}:{least}"),
        },
    );
    let head = once(format!("{} {opens} {closes}", flags(request))).chain(postings);
    head.chain(lines(request)).collect()
}

/// The part of a shape that says what a request holds and releases.
fn lines(request: &Request) -> Option<String> {
    if request.hold.is_none() && request.release.is_none() {
        return None;
    }
    let held = request.hold.iter().flat_map(|hold| {
        let lines = hold.lines.iter();
        let lines = lines.map(|line| format!(" {}:{}", line.units.units, line.most));
        once(hold.ttl_ms.to_string()).chain(lines)
    });
    let released = request.release.iter().flat_map(Release::units);
    let released = released.map(|line| format!(" {}", line.units));
    let bar = || once("|".to_owned());
    Some(bar().chain(held).chain(bar()).chain(released).collect())
}

/// The units of the lines that a request holds and releases, in the order of its shape.
pub fn held_units(request: &Request) -> impl Iterator<Item = &HeldUnits> + Clone {
    let held = request.hold.iter().flat_map(|hold| &hold.lines);
    let released = request.release.iter().flat_map(Release::units);
    held.map(|line| &line.units).chain(released)
}

/// The flags of a request, with the names that `lua/decide.lua` gives them.
pub const FLAGS: [(u32, &str); 17] = [
    (1, "idempotency"),
    (2, "deadline"),
    (4, "extension"),
    (8, "transitions"),
    (16, "closings"),
    (32, "takes_stock"),
    (64, "allow_closed"),
    (128, "allow_backlog"),
    (256, "refuse"),
    (512, "switch"),
    (2_048, "hold"),
    (4_096, "release"),
    (8_192, "expected"),
    (16_384, "retried_with_new_code"),
    (32_768, "late_check"),
    (65_536, "retried_anew"),
    (131_072, "own_hold"),
];

fn flags(request: &Request) -> u32 {
    let set = [
        request.idempotency.is_some(),
        request.deadline_ms.is_some(),
        matches!(&request.release, Some(of) if of.extended_ms().is_some()),
        !request.draft.transitions.is_empty(),
        !request.draft.closings.is_empty(),
        request.takes_stock,
        request.allow_closed,
        request.allow_backlog,
        request.refuse.is_some(),
        request.draft.selling.is_some(),
        request.hold.is_some(),
        request.release.is_some(),
        request.expected.is_some(),
        request.retried_with_new_code,
        request.late_check.is_some(),
        request.retried_anew,
        request.own_hold,
    ];
    FLAGS
        .into_iter()
        .zip(set)
        .filter_map(|((bit, _), is_set)| is_set.then_some(bit))
        .sum()
}
