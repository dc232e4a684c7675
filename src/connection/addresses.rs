//! How many connections each address has.
//!
//! Owns the counts of all workers. An IPv6 network of 64 bits is one address, since whoever has one of them has all; an IPv4 address that comes mapped
//! into IPv6 is that IPv4 address.
//!
//! Invariants: an address that has no connection is not remembered, so there are no more of them than connections.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use parking_lot::Mutex;

/// What counts as one address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Address {
    V4(Ipv4Addr),
    /// The network.
    V6(u64),
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// The connections of all addresses.
#[derive(Debug)]
pub(crate) struct Addresses {
    most: u64,
    // Hashed with a key of this process: addresses are chosen by whoever connects.
    counts: Mutex<HashMap<Address, u64>>,
}

/// One connection of an address. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct AddressShare {
    addresses: Arc<Addresses>,
    address: Address,
}

impl Addresses {
    /// Each address may have `most` connections.
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            counts: Mutex::default(),
        }
    }

    /// Counts a connection from `address`; `None` if that has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AddressShare> {
        let address = address.into();
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(AddressShare {
            addresses: Arc::clone(self),
            address,
        })
    }
}

impl Drop for AddressShare {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
        // What a crowd needed is given back when it is gone.
        if counts.capacity() > 1_024 && counts.len() < counts.capacity() / 8 {
            counts.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_count_which_goes_with_its_connections() {
        let addresses = Arc::new(Addresses::new(2));
        let first = addresses.enter(ip("10.0.0.1")).unwrap();
        let second = addresses.enter(ip("10.0.0.1")).unwrap();
        assert!(addresses.enter(ip("10.0.0.1")).is_none());
        assert!(addresses.enter(ip("10.0.0.2")).is_some());
        drop(first);
        let third = addresses.enter(ip("10.0.0.1"));
        assert!(third.is_some() && addresses.enter(ip("10.0.0.1")).is_none());
        drop((second, third));
        assert!(addresses.counts.lock().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_ipv4_address_is_itself() {
        let addresses = Arc::new(Addresses::new(1));
        let _first = addresses.enter(ip("2001:db8:1:2::1")).unwrap();
        assert!(addresses.enter(ip("2001:db8:1:2:ffff::9")).is_none());
        assert!(addresses.enter(ip("2001:db8:1:3::1")).is_some());
        let _mapped = addresses.enter(ip("::ffff:10.0.0.1")).unwrap();
        assert!(addresses.enter(ip("10.0.0.1")).is_none());
        assert!(addresses.enter(ip("10.0.0.2")).is_some());
        assert!(addresses.enter(ip("::1")).is_some());
    }

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        let addresses = Arc::new(Addresses::new(1));
        let crowd: Vec<_> = (0..10_000_u32)
            .filter_map(|number| addresses.enter(Ipv4Addr::from_bits(number).into()))
            .collect();
        assert_eq!(crowd.len(), 10_000);
        drop(crowd);
        assert!(addresses.counts.lock().capacity() <= 1_024);
    }
}
