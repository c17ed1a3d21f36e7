//! The state that live views need: the latest levels, the latest measurements, and the places of
//! streams.

use std::sync::Arc;

use axum::body::Bytes;
use stock_common::config::Config;

use crate::history::History;
use crate::kept::{Kept, Silence};
use crate::levels::Levels;
use crate::profile::Profile;
use crate::stream_places::Places;

/// Maximum number of lists of which an answer is kept.
const LISTS_KEPT: u64 = 100;

/// The state that live views need.
pub struct Live {
    /// The latest levels.
    pub levels: Levels,
    /// The measurements of the last minutes.
    pub history: History,
    /// API lists that pages show to everybody, by path. An admin's change forgets them all, so that
    /// the admin sees it on the next page.
    pub lists: Kept<String, Bytes>,
    /// The last requests with their times, while the setting is on.
    pub profile: Option<Profile>,
    /// Places for streams of levels.
    pub event_streams: Arc<Places>,
    /// Places for streams to pages.
    pub page_streams: Arc<Places>,
}

impl Live {
    pub(super) fn new(config: &Config, silence: &Arc<Silence>) -> Self {
        let each = config.http.streams_each_max;
        Self {
            levels: Levels::default(),
            history: History::default(),
            lists: Kept::new(LISTS_KEPT, silence),
            profile: config.http.request_profile.then(Profile::default),
            event_streams: Places::new(config.http.event_streams_max, each),
            page_streams: Places::new(config.http.page_streams_max, each),
        }
    }
}
