//! What is true: the subscription table, broadcast cursors, retention, sessions, as plain state machines that are handed the time and
//! return effects. Knows no I/O, no clock, no actor and no CBOR.

mod effect;
mod record;

pub use effect::*;
pub use record::*;
