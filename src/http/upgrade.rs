//! Taking a connection over from actix-http.
//!
//! Owns the step from a request to a connection of the worker, on a task of its own: the dispatcher, whose buffers are larger than a whole idle
//! connection, is gone before anything is awaited.

use std::{future::poll_fn, io, pin::Pin, rc::Rc, time::Duration};

use actix_codec::{AsyncWrite, Framed};
use actix_http::{Request, h1};
use actix_web::rt::{spawn, time::timeout};
use bytes::BytesMut;

use super::handshake::{self, Accepted, Refusal};
use crate::{
    access::Admission,
    actors::{
        session::{ConnectionTask, Conversation},
        worker::Worker,
    },
    config::Config,
    connection::{Overfull, Permit, Socket},
    domain::{Identity, Opening},
};

/// Judges an upgrade request, answers it, and lets the connection live on a task of its own.
pub(super) fn upgrade<C: Conversation>(
    worker: &Rc<Worker>,
    config: &Config,
    request: &Request,
    framed: Framed<Socket, h1::Codec>,
) {
    let judged = handshake::judge(request, &config.allowed_origins, &worker.authenticator);
    let permit = request.conn_data::<Rc<Permit>>().cloned();
    let parts = framed.into_parts();
    let socket = parts.io;
    // A copy, because the buffer is the handshake's, and would live as long as its last byte is not taken.
    let input = BytesMut::from(&parts.read_buf[..]);
    let limit = config.handshake_timeout;
    let refusal = permit
        .as_ref()
        .map_or(Some(Overfull::Server), |permit| permit.refusal());
    match (judged, refusal, permit) {
        (Ok(accepted), None, Some(permit)) => {
            open::<C>(Rc::clone(worker), accepted, socket, input, permit, limit);
        }
        (Ok(_), Some(Overfull::Address), _) => refuse(worker, socket, Refusal::Crowded, limit),
        (Ok(_), ..) => refuse(worker, socket, Refusal::Full, limit),
        (Err(refusal), ..) => refuse(worker, socket, refusal, limit),
    }
}

fn open<C: Conversation>(
    worker: Rc<Worker>,
    accepted: Accepted,
    socket: Socket,
    input: BytesMut,
    permit: Rc<Permit>,
    limit: Duration,
) {
    let identity = accepted.identity;
    let (Identity::Durable(_), Admission::Granted(principal)) = (identity, &accepted.admission)
    else {
        return start::<C>(&worker, accepted, socket, input, permit);
    };
    let principal = principal.clone();
    spawn(async move {
        match worker.may_connect(identity, principal).await {
            Opening::Granted if permit.is_granted() => {
                start::<C>(&worker, accepted, socket, input, permit);
            }
            Opening::Granted | Opening::Full => refuse(&worker, socket, Refusal::Full, limit),
            // By the connection's own end, which pages see, too.
            Opening::Foreign => {
                let refused = Accepted {
                    admission: Admission::Refused,
                    ..accepted
                };
                start::<C>(&worker, refused, socket, input, permit);
            }
        }
    });
}

fn start<C: Conversation>(
    worker: &Rc<Worker>,
    accepted: Accepted,
    socket: Socket,
    input: BytesMut,
    permit: Rc<Permit>,
) {
    let Accepted {
        identity,
        admission,
        form,
        head,
    } = accepted;
    if let Some(connection) = worker.take(form, socket, &head, permit) {
        spawn(ConnectionTask::<C>::new(
            Rc::clone(worker),
            connection,
            identity,
            admission,
            input,
        ));
    }
}

/// Answers a handshake that is refused. A client that does not take the answer in time does not get it.
fn refuse(worker: &Worker, socket: Socket, refusal: Refusal, limit: Duration) {
    worker.counts.refused.of(refusal.counted()).add(1);
    log::debug!("a handshake is refused: {refusal:?}");
    spawn(async move {
        let sent = timeout(limit, send(socket, &refusal.answer())).await;
        if let Ok(Err(error)) = sent {
            log::debug!("a refusal could not be sent: {error}");
        }
    });
}

async fn send(mut socket: Socket, mut answer: &[u8]) -> io::Result<()> {
    while !answer.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, answer)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        answer = &answer[written..];
    }
    poll_fn(|cx| Pin::new(&mut socket).poll_shutdown(cx)).await
}
