//! A conversation that says everything back, for suites that test WebSocket and know nothing of our protocol.
//!
//! Owns nothing but that. Reading, credit, outbox, heartbeat and closing are the server's; there is no data log, and nobody behind the
//! workers: what they send goes to [`Nobody`].

use std::{rc::Rc, sync::Arc};

use actix::{
    Actor, Context, Handler, Message,
    dev::{MessageResponse, OneshotSender},
};
use bytes::{Bytes, BytesMut};

use super::{neighbours::Neighbours, session::Conversation, worker::Worker};
use crate::{
    access::Admission,
    connection::{Connection, Credited},
    domain::Identity,
    http::Backend,
    metrics::Metrics,
    protocol::frame::{encode_binary, encode_text},
};

/// The conversation.
#[derive(Debug, Default)]
pub(crate) struct Echo;

impl Conversation for Echo {
    /// Nobody has to be asked, and there is no `Welcome`.
    fn begin(_: &Rc<Worker>, connection: &Rc<Connection>, _: Identity, _: Admission) {
        connection.open(false);
    }

    fn binary(&mut self, worker: &Rc<Worker>, connection: &Rc<Connection>, message: &Bytes) {
        answer(worker, connection, message, encode_binary);
    }

    fn text(&mut self, worker: &Rc<Worker>, connection: &Rc<Connection>, text: &Bytes) {
        answer(worker, connection, text, encode_text);
    }
}

/// Queues the answer. It holds credit until it is written, so that who does not read what comes back is read no further.
fn answer(
    worker: &Worker,
    connection: &Rc<Connection>,
    message: &Bytes,
    encode: fn(&mut BytesMut, &[u8]),
) {
    let bytes = message.len() as u32;
    connection.credit().take(bytes);
    connection.with_outbox(|outbox| {
        if let Some(out) = outbox.answers() {
            encode(out, message);
            outbox.answered(Credited {
                commands: 1,
                bytes: u64::from(bytes),
            });
        }
    });
    worker.mark_dirty(connection);
}

/// Takes the place of all that is behind the workers. Whoever asks it learns that it does not answer.
struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

struct NoAnswer;

impl<M: Message> MessageResponse<Nobody, M> for NoAnswer {
    fn handle(self, _: &mut Context<Nobody>, _: Option<OneshotSender<M::Result>>) {}
}

impl<M: Message> Handler<M> for Nobody {
    type Result = NoAnswer;

    fn handle(&mut self, _: M, _: &mut Self::Context) -> NoAnswer {
        NoAnswer
    }
}

/// A backend of nobody. Has to be called inside of an actix system.
pub(crate) fn backend() -> Backend {
    let nobody = Nobody.start();
    Backend {
        authenticator: Arc::default(),
        neighbours: Neighbours::new(&nobody, &nobody),
        releasers: [nobody.clone().recipient(), nobody.clone().recipient()],
        metrics: Arc::new(Metrics::new(".".into(), 1, Arc::default())),
    }
}
