//! A client: a cheap handle, and a task that keeps a connection.
//!
//! ```text
//!  Client (clone it) ──commands──> task: core (what is wanted) + socket ──WebSocket──> server
//!  Subscription <──bounded buffer──┘
//! ```
//!
//! * [`Client::publish`] resolves when the publication is in the log. Many may be under way; what was when a connection
//!   ended is sent again with the same id, so that it is added once.
//! * [`Client::subscribe`] gives a stream that goes on by itself after a reconnect. It drops what it has seen, and tells what is missing.
//! * [`Client::queue`] takes part in a Queue: a stream of deliveries, each acknowledged, rejected or extended by its handle.
//! * [`Client::log`] reads what is stored; the rest makes, changes, shows and deletes subscriptions.
//!
//! When the connection ends, the client comes back after a growing, jittered pause, unless the server does not want it back (close codes
//! 4500 to 4999, refusals such as 403, or a fault of the client): then every operation fails with [`Closed`].
//!
//! Needs tokio with I/O and time. Only `ws://` is spoken; for TLS, put a proxy next to the client.
//!
//! # Examples
//! ```
//! # #[cfg(feature = "server")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let server = infotainer::Server::start(infotainer::Config {
//! #     listen: ([127, 0, 0, 1], 0).into(),
//! #     data_dir: directory.path().join("data"),
//! #     ..infotainer::Config::default()
//! # })?;
//! # let url = format!("ws://{}/ws", server.address());
//! use infotainer::client::{Client, Event};
//! use infotainer::protocol::SubscribeFrom;
//!
//! let client = Client::connect(&url).await?;
//! let mut news = client.subscribe("news").from(SubscribeFrom::First).await?;
//!
//! let submitted = client.publish("news", "hello").await?;
//! assert_eq!(submitted.sequence.0, 1);
//!
//! if let Some(Event::Publication(publication)) = news.next().await.transpose()? {
//!     assert_eq!(&publication.data[..], b"hello");
//! }
//! client.close().await;
//! # server.stop()?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "server"))]
//! # fn main() {}
//! ```

mod administration;
mod backoff;
mod buffer;
mod builder;
mod connection;
mod core;
mod deliveries;
mod error;
mod handle;
mod log;
mod publish;
mod queue;
mod socket;
mod subscription;
mod tls;
mod token;

use std::{sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};

pub use self::{
    backoff::Reconnect,
    builder::Builder,
    error::{Closed, ConnectionError, PublishError, RequestError, SubscribeError},
    log::{Log, LogPage},
    publish::{Acknowledgement, Publish},
    queue::{Delivery, Lease, Queue, QueueBuilder, Rejection, Settlement},
    subscription::{Event, Gap, GapCause, NotRecovered, SubscribeBuilder, Subscription},
};
use self::{core::Command, handle::Handle};
pub use crate::protocol::ReceivedPublication as Publication;
use crate::protocol::Welcome;

/// A handle on a connection to a server. Cloning is cheap, and all clones share the connection, which ends when the last of them
/// and of their subscriptions, deliveries and requests is gone.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Handle,
    is_durable: bool,
}

/// How it stands with the connection.
#[derive(Clone, Debug)]
pub enum Status {
    /// The client tries to connect.
    Connecting,
    /// There is a connection, and this is what the server said first.
    Connected(Arc<Welcome>),
    /// The connection ended, or an attempt failed; the next one comes after the pause.
    Waiting {
        /// Why.
        error: ConnectionError,
        /// How long the client waits.
        pause: Duration,
    },
    /// The client has ended.
    Closed(Closed),
}

impl Client {
    /// Begins to make a client of the server at `url`, such as `ws://127.0.0.1:8949/ws`.
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    /// Connects to the server at `url` with a transient session: `Client::builder(url).connect()`.
    ///
    /// # Errors
    /// If the first attempt fails.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub async fn connect(url: &str) -> Result<Self, ConnectionError> {
        Self::builder(url).connect().await
    }

    /// How it stands with the connection, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.handle.status.clone()
    }

    /// Closes it for all clones, in order: takes no new requests, waits up to 10 s for the answers to those under way, and says goodbye to the server.
    /// Streams end. If there is no connection now, what is under way fails at once.
    pub async fn close(self) {
        let (done, is_done) = oneshot::channel();
        if self.handle.commands.send(Command::Close { done }).is_ok() {
            // The task answers, or is gone; either way the client has closed.
            drop(is_done.await);
        }
    }
}
