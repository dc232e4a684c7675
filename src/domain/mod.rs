//! What is true: the subscription table, broadcast cursors, retention, sessions, as plain state machines that are handed the time and
//! return effects. Knows no I/O, no clock, no actor and no CBOR.

mod batch;
mod effect;
mod log;
mod settings;

pub use batch::*;
pub use effect::*;
pub use log::*;
pub use settings::*;
