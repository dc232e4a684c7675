//! Who does it: thin shells round domain and data log.

pub(crate) mod messages;
