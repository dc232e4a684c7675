//! How much each identity may send, over all of its connections.
//!
//! Owns one meter for each identity, which its connections share, whichever workers they are on.
//!
//! Invariants: there are hardly more than twice as many meters as identities that have a connection; one outlives its last connection while there is
//! room, so that coming back is no way to a fresh one.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::Meter;
use crate::config::Rate;

/// Meters that are not worth looking through.
const FEW: usize = 256;

/// The meters of all identities.
#[derive(Debug)]
pub(crate) struct Identities {
    rate: Rate,
    max_message_size: usize,
    meters: Mutex<Meters>,
}

#[derive(Debug)]
struct Meters {
    by_name: HashMap<Arc<str>, Arc<Meter>, foldhash::fast::RandomState>,
    /// When there are so many, those that nobody has are given up.
    sweep_at: usize,
}

impl Identities {
    /// Each identity may send at `rate`.
    pub(crate) fn new(rate: Rate, max_message_size: usize) -> Self {
        Self {
            rate,
            max_message_size,
            meters: Mutex::new(Meters {
                by_name: HashMap::default(),
                sweep_at: FEW,
            }),
        }
    }

    /// The meter of the identity `name`; `None` if it may send as much as it can.
    pub(crate) fn meter(&self, name: &Arc<str>) -> Option<Arc<Meter>> {
        if self.rate == Rate::default() {
            return None;
        }
        let Meters { by_name, sweep_at } = &mut *self.meters.lock();
        if let Some(meter) = by_name.get(name) {
            return Some(Arc::clone(meter));
        }
        if by_name.len() >= *sweep_at {
            by_name.retain(|_, meter| Arc::strong_count(meter) > 1);
            by_name.shrink_to_fit();
            *sweep_at = (by_name.len() * 2).max(FEW);
        }
        let meter = Arc::new(Meter::new(self.rate, self.max_message_size)?);
        by_name.insert(Arc::clone(name), Arc::clone(&meter));
        Some(meter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities() -> Identities {
        let rate = Rate {
            messages: Some(2),
            bytes: None,
        };
        Identities::new(rate, 1 << 10)
    }

    #[test]
    fn all_connections_of_an_identity_share_one_meter() {
        let identities = identities();
        let meter = |name: &str| identities.meter(&name.into()).unwrap();
        let (first, second, other) = (meter("a"), meter("a"), meter("b"));
        assert_eq!((first.take(1), second.take(1)), (Ok(()), Ok(())));
        assert!(first.take(1).is_err() && second.take(1).is_err());
        assert_eq!(other.take(1), Ok(()));
        drop((first, second));
        assert!(meter("a").take(1).is_err());
    }

    #[test]
    fn identities_without_connections_are_given_up_before_they_are_many() {
        let identities = identities();
        let kept = identities.meter(&"kept".into()).unwrap();
        for number in 0..10_000 {
            identities.meter(&number.to_string().into());
        }
        let meters = identities.meters.lock();
        assert!(meters.by_name.len() <= FEW);
        assert!(Arc::ptr_eq(&meters.by_name["kept"], &kept));
    }
}
