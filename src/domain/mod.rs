//! What is true: the subscription table, broadcast cursors, retention, sessions, as plain state machines that are handed the time and
//! return effects. Knows no I/O, no clock, no actor and no CBOR.

mod access;
mod batch;
pub mod broker;
mod effect;
mod log;
mod memory_log;
pub mod queue;
mod read;
mod serving;
mod session;
mod settings;
mod state;
mod subscription;

pub use access::*;
pub use batch::*;
pub use broker::{Broker, BrokerLimits, KnownIds, Room};
pub use effect::*;
pub use log::*;
pub use memory_log::*;
pub use read::*;
pub use serving::*;
pub use session::*;
pub use settings::*;
pub use state::*;
pub use subscription::*;
