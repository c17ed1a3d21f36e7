//! The encoded request: a request as the batcher sends it, its payload and its shape written once.

use std::iter::once;

use stock_domain::journal::{DraftError, Posting};
use stock_domain::request::Request;

use crate::records::RecordName;

/// A request as the batcher sends it.
#[derive(Debug)]
pub struct EncodedRequest {
    /// The request itself.
    pub request: Request,
    /// The shape, which it has in common with many others, as `lua/decide.lua`'s header says.
    pub shape: String,
    /// Where the answer is remembered, if it has a key.
    pub record: Option<RecordName>,
    /// The payload, which the journal keeps.
    pub payload: Vec<u8>,
}

impl EncodedRequest {
    /// Writes the payload, so that the batcher only copies bytes.
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

/// Returns the part of a request that `lua/decide.lua` reads once of many requests that are alike.
fn shape(request: &Request) -> String {
    let (opens, closes) = request.window_ms.unwrap_or_default();
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
    once(format!("{} {opens} {closes}", flags(request)))
        .chain(postings)
        .collect()
}

/// The bits of `lua/decide.lua`'s header.
fn flags(request: &Request) -> u32 {
    [
        (1, request.idempotency.is_some()),
        (2, request.deadline_ms.is_some()),
        (8, !request.draft.marks.is_empty()),
        (16, !request.draft.closings.is_empty()),
        (32, request.takes_stock),
        (64, request.even_closed),
        (128, request.even_backlog),
        (256, request.refuse.is_some()),
        (512, request.draft.selling.is_some()),
        (2048, request.hold.is_some()),
        (4096, request.release.is_some()),
        (8192, request.expected.is_some()),
        (32768, request.late_mark.is_some()),
        (16384, request.redraws),
        (65536, request.reprices),
    ]
    .into_iter()
    .filter_map(|(bit, set)| set.then_some(bit))
    .sum()
}
