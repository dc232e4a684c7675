//! The core against a made-up server: every message is handed in by the test, and what the core says is decoded with the server's own
//! codec.

use std::task::Waker;

use tokio::sync::{Semaphore, oneshot::Receiver};
use uuid::Uuid;

use super::*;
use crate::{
    client::{ConnectionError, NotRecovered, buffer::Taken},
    protocol::{
        self, About, Acknowledge, Durability, Kind, Limits, PublicationId, RestoredSubscription,
        SERVER, ServerError, SessionId, Settled, SubmitPublication, Submitted, Subscribed,
        Timestamp, codec::decode_request,
    },
};

mod queues;

const NAME: &str = "news";

fn reference() -> SubscriptionReference {
    NAME.into()
}

fn id() -> SubscriptionId {
    reference().id
}

fn epoch(number: u128) -> Epoch {
    Epoch(Uuid::from_u128(number))
}

fn welcome(subscriptions: Vec<RestoredSubscription>, resumed: bool) -> Welcome {
    Welcome {
        session_id: SessionId(Uuid::from_u128(1)),
        durable: resumed,
        resumed,
        subscriptions,
        server: SERVER.into(),
        limits: Limits {
            max_message_size: 1_000,
            max_subscriptions: 10,
            heartbeat_interval: 1_000,
            heartbeat_timeout: 1_000,
        },
    }
}

fn restored(epoch: Epoch, cursor: u64) -> RestoredSubscription {
    RestoredSubscription {
        subscription_id: id(),
        kind: Kind::Broadcast,
        epoch,
        cursor: Sequence(cursor),
        recovered: true,
    }
}

struct Bench {
    core: Core,
    now: Instant,
}

impl Bench {
    fn new(durable: bool) -> Self {
        let bound = Bound {
            count: 4,
            bytes: 1_000,
        };
        Self {
            core: Core::new(durable, bound),
            now: Instant::now(),
        }
    }

    fn connected(durable: bool) -> Self {
        let mut bench = Self::new(durable);
        bench.connect(Vec::new());
        bench
    }

    fn connect(&mut self, subscriptions: Vec<RestoredSubscription>) {
        let resumed = !subscriptions.is_empty();
        self.core
            .connected(&welcome(subscriptions, resumed), self.now);
    }

    fn request(
        &mut self,
        command: ClientCommand,
    ) -> Receiver<Result<ServerResponse, RequestError>> {
        self.request_in(command, None)
    }

    fn request_in(
        &mut self,
        command: ClientCommand,
        epoch: Option<Epoch>,
    ) -> Receiver<Result<ServerResponse, RequestError>> {
        let (reply, receiver) = oneshot::channel();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        self.core.handle(Command::Request {
            command,
            epoch,
            reply,
            permit,
        });
        receiver
    }

    fn subscribe(
        &mut self,
        from: Option<SubscribeFrom>,
        acknowledges: bool,
    ) -> Receiver<Result<Begun, SubscribeError>> {
        let (reply, receiver) = oneshot::channel();
        let bound = Bound {
            count: 2,
            bytes: 1_000,
        };
        self.core.handle(Command::Subscribe {
            wanted: Wanted {
                subscription: reference(),
                from,
                epoch: None,
                bound,
                acknowledges,
            },
            reply,
        });
        receiver
    }

    /// What it said since this was asked last.
    fn said(&mut self) -> Vec<(RequestId, ClientCommand)> {
        self.core
            .outgoing()
            .drain(..)
            .map(|message| {
                let request = decode_request(&message).expect("a request");
                (request.id.expect("an id"), request.command)
            })
            .collect()
    }

    fn says(&mut self, id: Option<RequestId>, message: ServerMessage) {
        let received = Received {
            request_id: id,
            message,
        };
        self.core.received(received, self.now);
    }

    fn answer(&mut self, id: RequestId, response: impl Into<ServerResponse>) {
        self.says(Some(id), ServerMessage::Response(response.into()));
    }

    fn subscribed(&mut self, id: RequestId, epoch: Epoch, cursor: u64, recovered: bool) {
        let subscribed = Subscribed {
            subscription_id: self::id(),
            kind: Kind::Broadcast,
            epoch,
            first_sequence: Sequence(1),
            last_sequence: Sequence(cursor),
            recovered,
            cursor: Some(Sequence(cursor)),
            prefetch: None,
        };
        self.answer(id, ServerResponse::Subscribed(Box::new(subscribed)));
    }

    /// A subscription from the beginning, in the first epoch.
    fn subscribed_from_first(&mut self, acknowledges: bool) -> Begun {
        let mut begun = self.subscribe(Some(SubscribeFrom::First), acknowledges);
        let said = self.said();
        self.subscribed(said[0].0, epoch(1), 0, true);
        begun.try_recv().unwrap().unwrap()
    }

    fn publish(&mut self, sequences: impl IntoIterator<Item = u64>) {
        for sequence in sequences {
            let publication = ReceivedPublication {
                subscription_id: id(),
                publication_id: PublicationId(Uuid::from_u128(sequence.into())),
                sequence: Sequence(sequence),
                time: Timestamp(0),
                publisher: None,
                dead_letter: None,
                data: Bytes::from_static(b"x"),
                delivery: None,
            };
            self.says(None, ServerMessage::Publication(publication));
        }
    }

    /// Takes the next event out of the buffer, as the application would.
    fn take(&mut self, begun: &Begun) -> Option<Event> {
        let mut cx = std::task::Context::from_waker(Waker::noop());
        let (taken, tell) = begun.buffer.poll_take(&mut cx);
        if tell {
            self.core.handle(Command::Taken(begun.key));
        }
        match taken {
            std::task::Poll::Ready(Taken::Event(_, event)) => Some(event),
            _ => None,
        }
    }

    fn take_sequences(&mut self, begun: &Begun) -> Vec<u64> {
        std::iter::from_fn(|| match self.take(begun)? {
            Event::Publication(publication) => Some(publication.sequence.0),
            other => panic!("no publication: {other:?}"),
        })
        .collect()
    }
}

fn submit(text: &'static str) -> ClientCommand {
    ClientCommand::SubmitPublication(SubmitPublication {
        subscription: reference(),
        submission: Bytes::from_static(text.as_bytes()),
        kind: None,
        publication_id: Some(PublicationId(Uuid::from_u128(7))),
        expected_sequence: None,
    })
}

fn submitted() -> ServerResponse {
    ServerResponse::Submitted(Submitted {
        subscription_id: id(),
        publication_id: PublicationId(Uuid::from_u128(7)),
        sequence: Sequence(1),
        duplicate: false,
        durability: Durability::Synced,
    })
}

fn settled() -> ServerResponse {
    ServerResponse::Acknowledged(Settled {
        subscription_id: id(),
        count: 1,
        lost: None,
    })
}

fn acknowledge(sequence: u64) -> ClientCommand {
    ClientCommand::Acknowledge(Acknowledge {
        subscription: id().into(),
        what: Acknowledged::UpTo(Sequence(sequence)),
    })
}

fn from_of(command: &ClientCommand) -> (Option<SubscribeFrom>, Option<Epoch>) {
    match command {
        ClientCommand::Subscribe(subscribe) => (subscribe.from, subscribe.epoch),
        other => panic!("no Subscribe: {other:?}"),
    }
}

fn after(sequence: u64) -> (Option<SubscribeFrom>, Option<Epoch>) {
    (
        Some(SubscribeFrom::After(Sequence(sequence))),
        Some(epoch(1)),
    )
}

#[test]
fn what_was_not_answered_is_sent_again_in_order_and_nothing_else() {
    let mut bench = Bench::new(false);
    let mut first = bench.request(submit("a"));
    let mut second = bench.request(submit("b"));
    assert!(bench.said().is_empty());
    bench.connect(Vec::new());
    let said = bench.said();
    assert_eq!(said.len(), 2);
    bench.answer(said[0].0, submitted());
    assert_eq!(first.try_recv().unwrap().unwrap(), submitted());

    let third = bench.request(submit("c"));
    bench.core.disconnected();
    drop(third);
    let _fourth = bench.request(submit("d"));
    bench.connect(Vec::new());
    let again = bench.said();
    assert_eq!(again[0], said[1]);
    assert_eq!(again[1].1, submit("d"));
    assert_eq!(again.len(), 2);
    assert!(second.try_recv().is_err());
}

#[test]
fn server_that_shuts_down_is_asked_again_when_it_is_back() {
    let mut bench = Bench::connected(false);
    let mut reply = bench.request(submit("a"));
    let said = bench.said();
    let error = ServerError::new(ErrorCode::ShuttingDown, "later");
    bench.answer(said[0].0, error);
    assert!(reply.try_recv().is_err());
    bench.core.disconnected();
    bench.connect(Vec::new());
    assert_eq!(bench.said(), said);
    bench.answer(said[0].0, submitted());
    assert!(reply.try_recv().unwrap().is_ok());
}

#[test]
fn deletion_whose_answer_was_lost_is_no_error() {
    let mut bench = Bench::connected(false);
    let delete = ClientCommand::DeleteSubscription(reference());
    let not_found = || ServerError::new(ErrorCode::NotFound, "no");
    let mut reply = bench.request(delete.clone());
    let said = bench.said();
    bench.answer(said[0].0, not_found());
    assert!(reply.try_recv().unwrap().is_err());

    let mut reply = bench.request(delete);
    bench.core.disconnected();
    bench.connect(Vec::new());
    let said = bench.said();
    bench.answer(said[0].0, not_found());
    assert!(reply.try_recv().unwrap().is_ok());
}

#[test]
fn message_over_the_limit_is_not_sent() {
    let mut bench = Bench::new(false);
    let long: &'static str = Box::leak("x".repeat(2_000).into_boxed_str());
    let mut early = bench.request(submit(long));
    bench.connect(Vec::new());
    let mut late = bench.request(submit(long));
    for reply in [&mut early, &mut late] {
        assert!(matches!(
            reply.try_recv().unwrap(),
            Err(RequestError::TooLarge { limit: 1_000, .. })
        ));
    }
    assert!(bench.said().is_empty());
}

#[test]
fn subscription_goes_on_behind_the_last_event_and_drops_what_it_has_seen() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    bench.publish([1, 2]);
    bench.core.disconnected();
    bench.connect(Vec::new());
    let said = bench.said();
    assert_eq!(from_of(&said[0].1), after(2));
    // What comes before `Subscribed` is the old cursor's.
    bench.publish([9]);
    bench.subscribed(said[0].0, epoch(1), 2, true);
    bench.publish([1, 2]);
    assert_eq!(bench.take_sequences(&begun), [1, 2]);
    bench.publish([3]);
    assert_eq!(bench.take_sequences(&begun), [3]);
}

#[test]
fn subscription_that_had_no_answer_yet_is_asked_for_as_it_was() {
    let mut bench = Bench::new(false);
    let mut begun = bench.subscribe(Some(SubscribeFrom::Last(3)), false);
    for _ in 0..2 {
        bench.connect(Vec::new());
        let said = bench.said();
        assert_eq!(from_of(&said[0].1), (Some(SubscribeFrom::Last(3)), None));
        bench.core.disconnected();
    }
    bench.connect(Vec::new());
    let said = bench.said();
    bench.subscribed(said[0].0, epoch(1), 4, true);
    assert_eq!(
        begun.try_recv().unwrap().unwrap().place.sequence,
        Sequence(4)
    );
}

#[test]
fn missing_publications_are_told_even_if_the_server_does_not() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    bench.says(
        None,
        ServerMessage::Response(ServerResponse::Gap(protocol::Gap {
            subscription_id: id(),
            from: Sequence(1),
            to: Sequence(3),
            cause: protocol::GapCause::Retention,
        })),
    );
    assert_eq!(
        bench.take(&begun),
        Some(Event::Gap(Gap {
            from: Sequence(1),
            to: Sequence(3),
            cause: GapCause::Retention
        }))
    );
    bench.publish([4]);
    assert_eq!(bench.take_sequences(&begun), [4]);
    bench.publish([7]);
    assert_eq!(
        bench.take(&begun),
        Some(Event::Gap(Gap {
            from: Sequence(5),
            to: Sequence(6),
            cause: GapCause::Unexplained
        }))
    );
    assert_eq!(bench.take_sequences(&begun), [7]);
}

#[test]
fn log_of_another_epoch_is_told_and_delivered_from_its_oldest() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    bench.publish([1, 2]);
    assert_eq!(bench.take_sequences(&begun), [1, 2]);
    bench.core.disconnected();
    bench.connect(Vec::new());
    let said = bench.said();
    bench.subscribed(said[0].0, epoch(2), 0, false);
    bench.publish([1]);
    assert_eq!(
        bench.take(&begun),
        Some(Event::NotRecovered(NotRecovered {
            previous: Some((epoch(1), Sequence(2))),
            epoch: epoch(2),
            cursor: Sequence::ZERO,
        }))
    );
    assert_eq!(bench.take_sequences(&begun), [1]);
}

#[test]
fn position_below_the_oldest_kept_is_told_by_the_gap_alone() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    bench.core.disconnected();
    bench.connect(Vec::new());
    let said = bench.said();
    bench.subscribed(said[0].0, epoch(1), 0, false);
    assert_eq!(bench.take(&begun), None);
}

#[test]
fn full_buffer_stalls_first_and_then_its_subscription_falls_behind() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    bench.publish([1, 2]);
    assert!(bench.core.stalled().is_none());
    bench.publish([3]);
    assert!(bench.core.stalled().is_some());
    assert!(matches!(bench.take(&begun), Some(Event::Publication(_))));
    bench.core.unstall();
    assert!(bench.core.stalled().is_none());

    bench.publish([4]);
    bench.core.give_way();
    let said = bench.said();
    assert_eq!(said[0].1, ClientCommand::Unsubscribe(reference()));
    bench.publish([5, 6]);
    assert!(bench.said().is_empty());

    // Half of two is free again when one was taken.
    assert!(matches!(bench.take(&begun), Some(Event::Publication(_))));
    let said = bench.said();
    assert_eq!(from_of(&said[0].1), after(3));
    bench.publish([7]);
    bench.subscribed(said[0].0, epoch(1), 3, true);
    assert_eq!(bench.take_sequences(&begun), [3]);
    bench.publish([4, 5]);
    assert_eq!(bench.take_sequences(&begun), [4, 5]);
}

#[test]
fn subscription_that_is_behind_stays_so_over_a_reconnect() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    bench.publish([1, 2, 3]);
    bench.core.give_way();
    bench.core.disconnected();
    bench.connect(Vec::new());
    bench.said();
    bench.take(&begun);
    let said = bench.said();
    assert_eq!(from_of(&said[0].1), after(2));
}

#[test]
fn durable_session_that_falls_behind_keeps_what_it_acknowledged() {
    let mut bench = Bench::connected(true);
    let begun = bench.subscribed_from_first(true);
    bench.publish([1, 2]);
    assert_eq!(bench.take_sequences(&begun), [1, 2]);
    let said = bench.said();
    assert_eq!(said[0].1, acknowledge(1));
    bench.answer(said[0].0, settled());
    let said = bench.said();
    assert_eq!(said[0].1, acknowledge(2));

    bench.publish([3, 4, 5]);
    bench.core.give_way();
    let said = bench.said();
    assert_eq!(from_of(&said[0].1), (Some(SubscribeFrom::New), None));
    assert_eq!(said[1].1, acknowledge(2));
    bench.take(&begun);
    let said = bench.said();
    assert_eq!(from_of(&said[0].1), after(4));
    assert_eq!(said[1].1, acknowledge(2));
}

#[test]
fn acknowledgements_come_one_at_a_time_and_again_after_a_reconnect() {
    let mut bench = Bench::connected(true);
    let begun = bench.subscribed_from_first(true);
    bench.publish([1, 2]);
    assert_eq!(bench.take_sequences(&begun), [1, 2]);
    bench.publish([3, 4]);
    assert_eq!(bench.take_sequences(&begun), [3, 4]);
    assert_eq!(bench.said().len(), 1);
    bench.core.disconnected();
    // The server resumes behind what it has: nothing, since the acknowledgement was lost.
    bench.connect(vec![restored(epoch(1), 0)]);
    let said = bench.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].1, acknowledge(4));
    bench.publish([1, 2, 3, 4, 5]);
    assert_eq!(bench.take_sequences(&begun), [5]);
}

#[test]
fn durable_session_whose_cursor_went_further_goes_back_to_where_the_reader_is() {
    let mut bench = Bench::connected(true);
    let begun = bench.subscribed_from_first(false);
    bench.publish([1]);
    bench.core.disconnected();
    bench.connect(vec![restored(epoch(1), 3)]);
    let said = bench.said();
    assert_eq!(from_of(&said[0].1), after(1));
    bench.publish([4]);
    bench.subscribed(said[0].0, epoch(1), 1, true);
    bench.publish([2]);
    assert_eq!(bench.take_sequences(&begun), [1, 2]);
}

#[test]
fn acknowledgement_of_an_ended_epoch_is_never_sent_in_the_next() {
    let mut bench = Bench::connected(true);
    let begun = bench.subscribed_from_first(false);
    bench.publish([1, 2]);
    let mut reply = bench.request_in(acknowledge(2), Some(epoch(1)));
    bench.said();
    bench.core.disconnected();
    bench.connect(vec![restored(epoch(2), 0)]);
    assert!(matches!(
        reply.try_recv().unwrap(),
        Err(RequestError::EpochEnded)
    ));
    let said = bench.said();
    assert_eq!(said.len(), 1, "{said:?}");
    bench.subscribed(said[0].0, epoch(2), 0, false);
    let mut reply = bench.request_in(acknowledge(2), Some(epoch(1)));
    assert!(matches!(
        reply.try_recv().unwrap(),
        Err(RequestError::EpochEnded)
    ));
    drop(begun);
}

#[test]
fn restored_subscription_waits_for_whoever_asks_for_it() {
    let mut bench = Bench::new(true);
    bench.connect(vec![restored(epoch(1), 5)]);
    bench.publish([6, 7]);
    let mut begun = bench.subscribe(None, false);
    let begun = begun.try_recv().unwrap().unwrap();
    assert_eq!(begun.place.sequence, Sequence(5));
    assert!(bench.said().is_empty());
    bench.publish([8]);
    assert_eq!(bench.take_sequences(&begun), [6, 7, 8]);
}

#[test]
fn subscription_asked_for_before_the_session_was_resumed_takes_up_its_cursor() {
    let mut bench = Bench::new(true);
    let mut begun = bench.subscribe(None, false);
    bench.connect(vec![restored(epoch(1), 5)]);
    bench.publish([6]);
    let begun = begun.try_recv().unwrap().unwrap();
    assert_eq!(bench.take_sequences(&begun), [6]);
    assert!(bench.said().is_empty());
}

#[test]
fn what_a_dropped_reader_has_not_done_with_comes_again_to_the_next() {
    let mut bench = Bench::connected(true);
    let begun = bench.subscribed_from_first(true);
    bench.publish([1, 2]);
    bench.take(&begun);
    bench.take(&begun);
    assert_eq!(bench.said()[0].1, acknowledge(1));
    bench.core.handle(Command::Released(begun.key));
    let said = bench.said();
    assert_eq!(from_of(&said[0].1), after(1));
    assert_eq!(said[1].1, acknowledge(1));
    bench.subscribed(said[0].0, epoch(1), 1, true);
    bench.publish([2]);
    let begun = bench.subscribe(None, true).try_recv().unwrap().unwrap();
    assert_eq!(begun.place.sequence, Sequence(1));
    assert_eq!(bench.take_sequences(&begun), [2]);
}

#[test]
fn resumption_that_fails_for_a_time_is_tried_again_and_one_that_fails_for_good_is_told() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    bench.core.disconnected();
    bench.connect(Vec::new());
    let said = bench.said();
    bench.answer(
        said[0].0,
        ServerError::new(ErrorCode::LogUnavailable, "not now"),
    );
    let retry = bench.core.next_retry().unwrap();
    assert!(retry > bench.now);
    bench.core.retry(bench.now);
    assert!(bench.said().is_empty());
    bench.core.retry(retry);
    let said = bench.said();
    bench.answer(said[0].0, ServerError::new(ErrorCode::NotAuthorized, "no"));
    assert!(bench.core.next_retry().is_none());
    let mut cx = std::task::Context::from_waker(Waker::noop());
    let (taken, _) = begun.buffer.poll_take(&mut cx);
    assert!(matches!(
        taken,
        std::task::Poll::Ready(Taken::End(Some(SubscribeError::Refused(error))))
            if error.code == ErrorCode::NotAuthorized
    ));
}

#[test]
fn subscription_that_nobody_waits_for_any_more_can_be_asked_for_again() {
    let mut bench = Bench::new(false);
    drop(bench.subscribe(None, false));
    let mut again = bench.subscribe(None, false);
    assert!(again.try_recv().is_err());
    assert!(matches!(
        bench.subscribe(None, false).try_recv().unwrap(),
        Err(SubscribeError::AlreadySubscribed)
    ));
}

#[test]
fn deletion_ends_the_stream_behind_what_was_delivered() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    bench.publish([1]);
    let about = About {
        subscription_id: id(),
    };
    bench.says(
        None,
        ServerMessage::Response(ServerResponse::Deleted(about)),
    );
    assert!(matches!(bench.take(&begun), Some(Event::Publication(_))));
    assert_eq!(bench.take(&begun), Some(Event::Deleted));
    bench.core.disconnected();
    bench.connect(Vec::new());
    assert!(bench.said().is_empty());
}

#[test]
fn end_of_the_client_is_told_to_everybody() {
    let mut bench = Bench::connected(false);
    let begun = bench.subscribed_from_first(false);
    let mut reply = bench.request(submit("a"));
    let closed = ConnectionError::Closed {
        code: 4502,
        reason: String::new(),
    };
    bench.core.finish(&Closed::ByServer(closed));
    assert!(matches!(
        reply.try_recv().unwrap(),
        Err(RequestError::Closed(Closed::ByServer(_)))
    ));
    let mut cx = std::task::Context::from_waker(Waker::noop());
    let (taken, _) = begun.buffer.poll_take(&mut cx);
    assert!(matches!(
        taken,
        std::task::Poll::Ready(Taken::End(Some(SubscribeError::Closed(_))))
    ));
}
