//! Who does it: thin shells round domain and data log.
//!
//! | actor | thread | owns |
//! | --- | --- | --- |
//! | [`session::WebSocketSession`] | its HTTP worker | what came of one connection and is not forwarded yet; its credit |
//! | [`hub::Hub`] | one for each HTTP worker | the worker's connections: outboxes, live cursors, heartbeats |
//! | [`pubsub_service::PubSubService`] | its own | the [`Broker`](crate::domain::Broker): subscriptions, sessions, sequences |
//! | [`data_logger::DataLogger`] | its own | the [`DataLog`](crate::datalog::DataLog): the commit point |
//! | [`log_reader::LogFetcher`] | a small pool | nothing: it reads what DataLogger wrote |
//!
//! Waiting goes one way: session, PubSubService, DataLogger. The other way never waits.

mod authentication;
mod closing;
pub(crate) mod commands;
pub(crate) mod data_logger;
#[cfg(feature = "conformance")]
pub(crate) mod echo;
pub(crate) mod hub;
pub(crate) mod hubs;
pub(crate) mod log_reader;
pub(crate) mod messages;
pub(crate) mod neighbours;
pub(crate) mod pubsub_service;
pub(crate) mod session;
pub(crate) mod worker;
