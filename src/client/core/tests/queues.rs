//! Leases over reconnects.

use super::*;

impl Bench {
    fn take_part(&mut self) -> QueueBegun {
        let (reply, mut begun) = oneshot::channel();
        let wanted = QueueWanted {
            subscription: reference(),
            prefetch: Some(2),
        };
        self.core.handle(Command::SubscribeQueue { wanted, reply });
        let said = self.said();
        assert_eq!(said.len(), 1);
        self.served(&said[0]);
        begun.try_recv().unwrap().unwrap()
    }

    /// Answers a `Subscribe` of a Queue.
    fn served(&mut self, (request, command): &(RequestId, ClientCommand)) {
        let ClientCommand::Subscribe(subscribe) = command else {
            panic!("no Subscribe: {command:?}");
        };
        assert_eq!(subscribe.kind, Some(Kind::Queue));
        assert_eq!((subscribe.from, subscribe.epoch), (None, None));
        assert_eq!(subscribe.prefetch, Some(2));
        let subscribed = Subscribed {
            subscription_id: id(),
            kind: Kind::Queue,
            epoch: epoch(1),
            first_sequence: Sequence(1),
            last_sequence: Sequence(9),
            recovered: true,
            cursor: None,
            prefetch: Some(2),
        };
        self.answer(*request, ServerResponse::Subscribed(Box::new(subscribed)));
    }

    fn settle(
        &mut self,
        leases: Vec<Lease>,
        how: Settling,
    ) -> Receiver<Result<Settlement, RequestError>> {
        let (reply, receiver) = oneshot::channel();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        self.core.handle(Command::Settle {
            subscription: reference(),
            leases,
            how,
            reply,
            permit,
        });
        receiver
    }
}

fn taken(begun: &QueueBegun) -> Vec<Lease> {
    use crate::client::deliveries::Taken;
    let mut cx = std::task::Context::from_waker(Waker::noop());
    std::iter::from_fn(|| match begun.deliveries.poll_take(&mut cx) {
        std::task::Poll::Ready(Taken::Delivery(lease, _)) => Some(lease),
        _ => None,
    })
    .collect()
}

fn lost(leases: &[Lease]) -> Settlement {
    Settlement {
        count: 0,
        lost: leases.iter().map(Lease::publication_id).collect(),
    }
}

#[test]
fn what_was_asked_of_leases_is_lost_with_the_connection_and_never_sent_again() {
    let mut bench = Bench::connected(false);
    let begun = bench.take_part();
    bench.publish([1, 2]);
    let held = taken(&begun);
    let mut unanswered = bench.settle(held.clone(), Settling::Acknowledge);
    assert_eq!(bench.said().len(), 1);
    bench.core.disconnected();
    assert_eq!(unanswered.try_recv().unwrap().unwrap(), lost(&held));
    let mut meanwhile = bench.settle(held.clone(), Settling::Extend);
    assert_eq!(meanwhile.try_recv().unwrap().unwrap(), lost(&held));

    bench.connect(Vec::new());
    let said = bench.said();
    assert_eq!(said.len(), 1);
    bench.served(&said[0]);
    bench.publish([1]);
    let mut late = bench.settle(held.clone(), Settling::Acknowledge);
    assert_eq!(late.try_recv().unwrap().unwrap(), lost(&held));
    assert_eq!(bench.said(), []);
    // Only what is held now is asked for.
    let new = taken(&begun);
    bench
        .settle([new.clone(), held.clone()].concat(), Settling::Acknowledge)
        .close();
    let said = bench.said();
    let ClientCommand::Acknowledge(acknowledge) = &said[0].1 else {
        panic!("no Acknowledge: {said:?}");
    };
    let asked = Acknowledged::Ids(vec![new[0].publication_id()]);
    assert_eq!(acknowledge.what, asked);
}

#[test]
fn what_was_not_taken_goes_with_the_connection() {
    let mut bench = Bench::connected(false);
    let begun = bench.take_part();
    bench.publish([1, 2]);
    bench.core.disconnected();
    assert_eq!(taken(&begun), []);
}

#[test]
fn sequences_that_came_before_come_again() {
    let mut bench = Bench::connected(false);
    let begun = bench.take_part();
    bench.publish([2, 1]);
    assert_eq!(taken(&begun).len(), 2);
    bench.publish([2, 1]);
    assert_eq!(taken(&begun).len(), 2);
}

#[test]
fn a_shutdown_leaves_leases_lost_not_failed() {
    let mut bench = Bench::connected(false);
    let begun = bench.take_part();
    bench.publish([1]);
    let held = taken(&begun);
    let mut asked = bench.settle(held.clone(), Settling::Acknowledge);
    let request = bench.said()[0].0;
    let error = ServerError::new(ErrorCode::ShuttingDown, "the server shuts down");
    bench.answer(request, error);
    bench.core.disconnected();
    assert_eq!(asked.try_recv().unwrap().unwrap(), lost(&held));
}

#[test]
fn what_nobody_claims_is_given_up_after_a_while() {
    let mut bench = Bench::new(true);
    let queue = RestoredSubscription {
        kind: Kind::Queue,
        ..restored(epoch(1), 0)
    };
    bench.connect(vec![queue]);
    assert_eq!(bench.said(), []);
    let at = bench.core.next_retry().unwrap();
    bench.core.retry(at - std::time::Duration::from_millis(1));
    assert_eq!(bench.said(), []);
    bench.core.retry(at);
    let said = bench.said();
    let is_given_up =
        matches!(&said[..], [(_, ClientCommand::Unsubscribe(given_up))] if given_up.id == id());
    assert!(is_given_up, "{said:?}");
    assert_eq!(bench.core.next_retry(), None);
}
