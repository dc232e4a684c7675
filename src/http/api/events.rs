//! Server-sent events: a subscription as a stream for those who can't do WebSocket (HTML standard, section 9.2).
//!
//! Owns the stream's text: publications are messages, everything else has a name, and every place has an id, `epoch:sequence`, from which a
//! client that comes back goes on. Does not own delivery: that is a [`Link`]'s, with its subscriber, outbox and catching up.
//!
//! ```text
//!   retry: 2371
//!   event: subscribed        what Subscribed says
//!   (message)                a publication
//!   event: gap               publications that do not come: from, to, cause
//!   event: deleted           the last one: the subscription is gone
//!   event: closed            the last one: the server ends the stream, code and reason as on a WebSocket
//!   :                        nothing, every now and then, so that both sides know of each other
//! ```

use std::{
    convert::Infallible,
    fmt::{self, Display, Write},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderMap, HeaderValue},
};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval};
use uuid::Uuid;

use super::{
    ask,
    link::{Closed, Link, decode, internal},
    negotiate::weight,
    problem::Problem,
    target::Parameters,
};
use crate::protocol::{
    ClientCommand, Epoch, ErrorCode, Kind, NUMBER_LIMIT, ReceivedPublication, Sequence,
    ServerError, ServerResponse, Subscribe, SubscribeFrom, Subscribed, SubscriptionReference,
    codec::ServerMessage,
    shown::{DataForm, ShownPublication},
};

const MEDIA_TYPE: &str = "text/event-stream";

/// Clients of a server that was away come back after so many milliseconds, each after others.
const RETRY: std::ops::Range<u32> = 1_000..5_000;

/// Text that is handed on at once: more would only lie in the HTTP connection's buffer.
const CHUNK: usize = 32 << 10;

/// Where a stream begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Beginning {
    from: SubscribeFrom,
    epoch: Option<Epoch>,
    /// Whether the client comes back.
    is_resumed: bool,
}

/// Subscribes, and answers with the stream. `is_head` wants only the head of that.
pub(super) async fn subscribe(
    mut link: Link,
    headers: &HeaderMap,
    subscription: SubscriptionReference,
    parameters: &Parameters,
    heartbeat: Duration,
    is_head: bool,
) -> Result<HttpResponse, Problem> {
    if weight(headers, MEDIA_TYPE) == 0 {
        return Err(Problem::not_acceptable(MEDIA_TYPE));
    }
    let form = parameters.data_form()?;
    let beginning = beginning(headers, parameters)?;
    if is_head {
        ask(&mut link, ClientCommand::GetSubscription(subscription)).await?;
        return Ok(stream_head().finish());
    }
    // To whoever may only subscribe, all is absent that is asked for otherwise.
    if beginning.is_resumed && link.may_look_at(&subscription) {
        let asked = ask(
            &mut link,
            ClientCommand::GetSubscription(subscription.clone()),
        )
        .await;
        match asked {
            Ok(_) => {}
            // It was deleted meanwhile. A client told so does not come back (HTML standard, section 9.2.2).
            Err(error) if error.code == ErrorCode::NotFound => {
                return Ok(HttpResponse::NoContent().finish());
            }
            Err(error) => return Err(error.into()),
        }
    }
    let command = ClientCommand::Subscribe(Subscribe {
        subscription,
        // A Queue is for those who can acknowledge.
        kind: Some(Kind::Broadcast),
        from: Some(beginning.from),
        epoch: beginning.epoch,
        prefetch: None,
    });
    let ServerResponse::Subscribed(subscribed) = ask(&mut link, command).await? else {
        return Err(internal().into());
    };
    let mut heartbeat = interval(heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events = Events {
        link,
        epoch: subscribed.epoch,
        form,
        heartbeat,
        is_quiet: false,
        is_over: false,
        text: BytesMut::new(),
    };
    events.begin(&subscribed);
    Ok(stream_head().streaming(events))
}

fn stream_head() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)));
    // For proxies that would collect the stream before they hand it on.
    response.insert_header(("x-accel-buffering", "no"));
    response
}

/// By `Last-Event-ID`, or else by the parameter `from`: `new` without either.
fn beginning(headers: &HeaderMap, parameters: &Parameters) -> Result<Beginning, Problem> {
    let from = match parameters.text("from")? {
        None => SubscribeFrom::New,
        Some(text) => parse_from(text).ok_or_else(|| {
            Problem::invalid(
                "`from` has to be first, new, the sequence to begin with, or -N for the last N",
            )
        })?,
    };
    let last = headers.get("last-event-id").map(HeaderValue::to_str);
    match last {
        None | Some(Ok("")) => Ok(Beginning {
            from,
            epoch: None,
            is_resumed: false,
        }),
        Some(last) => {
            let (epoch, position) = last.ok().and_then(parse_event_id).ok_or_else(|| {
                Problem::invalid("Last-Event-ID has to be the id of an event of this stream")
            })?;
            Ok(Beginning {
                from: SubscribeFrom::After(position),
                epoch: Some(epoch),
                is_resumed: true,
            })
        }
    }
}

/// As `infotainer sub --from` has it.
fn parse_from(text: &str) -> Option<SubscribeFrom> {
    let number = |digits: &str| {
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| is_plain);
        number.filter(|number| (1..NUMBER_LIMIT).contains(number))
    };
    match text {
        "first" => Some(SubscribeFrom::First),
        "new" => Some(SubscribeFrom::New),
        _ => match text.strip_prefix('-') {
            Some(count) => number(count).map(SubscribeFrom::Last),
            None => number(text).map(|first| SubscribeFrom::After(Sequence(first).previous())),
        },
    }
}

fn parse_event_id(id: &str) -> Option<(Epoch, Sequence)> {
    let (epoch, position) = id.trim().split_once(':')?;
    let epoch = Uuid::try_parse(epoch).ok()?;
    let position = position.parse().ok().filter(|at| *at < NUMBER_LIMIT)?;
    Some((Epoch(epoch), Sequence(position)))
}

/// The id of the place behind `position`.
struct EventId(Epoch, Sequence);

impl Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

/// The stream.
struct Events {
    link: Link,
    epoch: Epoch,
    form: DataForm,
    heartbeat: Interval,
    /// Whether nothing was said since the last tick.
    is_quiet: bool,
    is_over: bool,
    /// What is to be handed on.
    text: BytesMut,
}

impl Events {
    fn begin(&mut self, subscribed: &Subscribed) {
        // Writing to a buffer never fails.
        let _ = writeln!(self.text, "retry: {}", fastrand::u32(RETRY));
        let cursor = subscribed.cursor.unwrap_or_default();
        self.put(Some("subscribed"), Some(cursor), subscribed);
    }

    /// Adds an event. One that stands for a place has the id of that.
    fn put<T: Serialize>(&mut self, name: Option<&str>, place: Option<Sequence>, data: &T) {
        if let Some(name) = name {
            let _ = writeln!(self.text, "event: {name}");
        }
        if let Some(place) = place {
            let _ = writeln!(self.text, "id: {}", EventId(self.epoch, place));
        }
        let data = serde_json::to_string(data).unwrap_or_default();
        // Only between the tokens of a value that is shown as it was written there are ends of lines.
        for line in data.split(['\n', '\r']) {
            let _ = writeln!(self.text, "data: {line}");
        }
        self.text.extend_from_slice(b"\n");
    }

    fn publication(&mut self, publication: &ReceivedPublication) {
        let shown = ShownPublication::new(publication, self.form);
        self.put(None, Some(publication.sequence), &shown);
    }

    fn received(&mut self, message: &Bytes) {
        match decode(message).map(|received| received.message) {
            Ok(ServerMessage::Publication(publication)) => self.publication(&publication),
            Ok(ServerMessage::Response(ServerResponse::Gap(gap))) => {
                self.put(Some("gap"), Some(gap.to), &gap);
            }
            Ok(ServerMessage::Response(ServerResponse::Deleted(about))) => {
                self.put(Some("deleted"), None, &about);
                self.is_over = true;
            }
            Ok(ServerMessage::Response(_) | ServerMessage::Unknown(_)) => {}
            Err(_) => self.is_over = true,
        }
    }

    fn closed(&mut self, closed: Closed) {
        #[derive(Serialize)]
        struct Farewell {
            #[serde(skip_serializing_if = "Option::is_none")]
            code: Option<u16>,
            reason: String,
        }
        let farewell = Farewell {
            code: closed.code,
            reason: ServerError::from(closed).message,
        };
        self.put(Some("closed"), None, &farewell);
        self.is_over = true;
    }
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.is_over && this.text.len() < CHUNK {
            match this.link.poll_next(cx) {
                Poll::Ready(Ok(message)) => this.received(&message),
                Poll::Ready(Err(closed)) => this.closed(closed),
                Poll::Pending => break,
            }
        }
        if this.text.is_empty() {
            if this.is_over {
                return Poll::Ready(None);
            }
            while this.heartbeat.poll_tick(cx).is_ready() {
                if this.is_quiet {
                    this.text.extend_from_slice(b":\n\n");
                }
                this.is_quiet = true;
            }
            if this.text.is_empty() {
                return Poll::Pending;
            }
        } else {
            this.is_quiet = false;
        }
        Poll::Ready(Some(Ok(this.text.split().freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_where_sub_would() {
        for (text, from) in [
            ("first", Some(SubscribeFrom::First)),
            ("new", Some(SubscribeFrom::New)),
            ("1", Some(SubscribeFrom::After(Sequence(0)))),
            ("17", Some(SubscribeFrom::After(Sequence(16)))),
            ("-3", Some(SubscribeFrom::Last(3))),
            ("", None),
            ("0", None),
            ("-0", None),
            ("--1", None),
            ("+1", None),
            ("First", None),
            ("9007199254740992", None),
        ] {
            assert_eq!(parse_from(text), from, "{text}");
        }
    }

    #[test]
    fn an_id_is_a_place_to_come_back_to() {
        let epoch = Epoch::random();
        let id = EventId(epoch, Sequence(7)).to_string();
        assert_eq!(parse_event_id(&id), Some((epoch, Sequence(7))));
        for id in [
            "",
            "7",
            ":7",
            "x:7",
            &format!("{epoch}:"),
            &format!("{epoch}:-1"),
        ] {
            assert_eq!(parse_event_id(id), None, "{id}");
        }
    }
}
