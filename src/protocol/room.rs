//! How much of a long answer fits into one response.

use super::PublicationId;

/// The most bytes of a `LogIndex`, `DataLogEntry` or `Subscriptions`: over it they are cut to what fits, with `more: true`.
pub const MAX_RESPONSE: usize = 4 * 1024 * 1024;

/// What a response of items has at the most besides its items: envelope, names, ids and numbers.
const BESIDES_ITEMS: usize = 160;

impl PublicationId {
    /// The bytes that one id adds to a list: the head of a byte string of 16, and the id.
    pub const ENCODED_LEN: usize = 17;
}

/// The room that is left in one response. The first item always fits, however long it is.
///
/// An item adds [`PublicationId::ENCODED_LEN`] for an id, the length of
/// [`StoredPublication::fields`](super::StoredPublication::fields) for a publication, and
/// [`encoded_len`](super::codec::encoded_len) for anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseRoom {
    left: usize,
    empty: bool,
}

impl ResponseRoom {
    /// The room of a response without items.
    pub fn new() -> Self {
        Self {
            left: MAX_RESPONSE - BESIDES_ITEMS,
            empty: true,
        }
    }

    /// Takes the room of an item of `len` bytes. `false`, with nothing taken, if there is too little: the item belongs into
    /// the next response.
    #[must_use]
    pub fn take(&mut self, len: usize) -> bool {
        if len > self.left && !self.empty {
            return false;
        }
        self.left = self.left.saturating_sub(len);
        self.empty = false;
        true
    }
}

impl Default for ResponseRoom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_item_always_fits_and_later_ones_only_into_what_is_left() {
        let mut room = ResponseRoom::new();
        assert!(room.take(MAX_RESPONSE * 2));
        assert!(!room.take(1));

        let mut room = ResponseRoom::new();
        assert!(room.take(MAX_RESPONSE - BESIDES_ITEMS - 10));
        assert!(!room.take(11));
        assert!(room.take(10));
        assert!(!room.take(1));
    }
}
