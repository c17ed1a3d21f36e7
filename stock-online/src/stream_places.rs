//! Places for event streams: a limit for all, a limit per user or address, and a share that only
//! admins may take.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use stock_common::id::UserId;
use stock_common::lock::lock;

use crate::limits::network_of;

/// Reasons why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All places are taken.
    #[error("all streams are taken")]
    Altogether,
    /// The holder has taken as many places as one holder may.
    #[error("at most {0} streams at the same time")]
    OfOne(usize),
}

/// One place in `ADMINS_PART` is left for admins.
const ADMINS_PART: usize = 10;

/// The client that a stream is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// An admin, who has no limit of their own.
    Admin,
    /// A user.
    User(UserId),
    /// Anybody at an address.
    Address(IpAddr),
}

impl Holder {
    /// Clients at an address.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self::Address(network_of(address))
    }
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_holder: HashMap<Holder, usize>,
}

/// The places for one kind of stream.
#[derive(Debug)]
pub struct Places {
    all: usize,
    /// Maximum places of one user, or of one address; 0 means no limit.
    each: usize,
    taken: Mutex<Taken>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    /// `all` places, of which one holder may take `each`.
    #[must_use]
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each,
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        lock(&self.taken)
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`Full`]: all places are taken, or the holder has as many as one holder may take.
    pub fn take(self: &Arc<Self>, holder: Holder) -> Result<Place, Full> {
        let mut taken = self.taken();
        let is_admin = holder == Holder::Admin;
        let left_for_admins = if is_admin { 0 } else { self.all / ADMINS_PART };
        if taken.all + left_for_admins >= self.all {
            return Err(Full::Altogether);
        }
        let own = taken.by_holder.entry(holder).or_default();
        if !is_admin && self.each > 0 && *own >= self.each {
            return Err(Full::OfOne(self.each));
        }
        *own += 1;
        taken.all += 1;
        drop(taken);
        Ok(Place {
            places: Arc::clone(self),
            holder,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_holder.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::UserId;

    use super::{Full, Holder, Places};

    #[test]
    fn one_user_has_so_many_and_admins_find_a_place_when_users_find_none() {
        let places = Places::new(20, 3);
        let user = |id| Holder::User(UserId(id));
        let refused = |holder| places.take(holder).err();
        let first: Vec<_> = (0..3).map(|_| places.take(user(1)).unwrap()).collect();
        assert_eq!(refused(user(1)), Some(Full::OfOne(3)));
        let others: Vec<_> = (2..17).map(|id| places.take(user(id)).unwrap()).collect();
        assert_eq!(refused(user(99)), Some(Full::Altogether));
        let admins: Vec<_> = (0..2)
            .map(|_| places.take(Holder::Admin).unwrap())
            .collect();
        assert_eq!(refused(Holder::Admin), Some(Full::Altogether));
        drop((first, others, admins));
        assert_eq!(places.taken().all, 0);
        assert!(places.taken().by_holder.is_empty());
        assert_eq!(refused(user(1)), None);
    }
}
