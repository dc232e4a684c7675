//! Queues: what is leased, settled, lost with a connection, and delivered again.

use std::collections::HashMap;

use infotainer::client::{Delivery, Queue, Rejection, Settlement};

use super::*;

async fn create(client: &Client, settings: SettingsPatch) {
    let kind = Some(Kind::Queue);
    client.create("jobs", kind, settings).await.unwrap();
}

/// Publishes 1 to `count` as text.
async fn publish(client: &Client, count: u64) {
    for n in 1..=count {
        let publication = client.publish("jobs", n.to_string()).kind(Kind::Queue);
        publication.await.unwrap();
    }
}

async fn delivered(jobs: &mut Queue) -> Delivery {
    within("a delivery", jobs.next())
        .await
        .expect("the stream goes on")
        .expect("no error")
}

/// The next delivery, which has to be of this sequence, and for the so manyeth time.
async fn expect(jobs: &mut Queue, sequence: u64, number: u64) -> Delivery {
    let delivery = delivered(jobs).await;
    let is = (delivery.publication.sequence.0, delivery.number());
    assert_eq!(is, (sequence, number));
    delivery
}

/// `pending` and `in_flight`.
async fn counts(client: &Client) -> (u64, u64) {
    let meta = client.get("jobs").await.unwrap();
    (meta.pending.unwrap(), meta.in_flight.unwrap())
}

async fn counts_are(client: &Client, pending: u64, in_flight: u64) {
    within("that many", async {
        while counts(client).await != (pending, in_flight) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn no_more_than_the_prefetch_is_leased_and_settling_makes_room() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    publish(&client, 5).await;
    let mut jobs = client.queue("jobs").prefetch(2).await.unwrap();
    assert_eq!(jobs.prefetch(), 2);
    let first = expect(&mut jobs, 1, 1).await;
    let second = expect(&mut jobs, 2, 1).await;
    assert_eq!(&first.publication.data[..], b"1");
    assert_eq!(counts(&client).await, (3, 2));
    assert!(first.acknowledge().await.unwrap());
    assert!(!first.acknowledge().await.unwrap());
    let third = expect(&mut jobs, 3, 1).await;
    let leases = [second.lease(), third.lease(), first.lease(), second.lease()];
    let settlement = jobs.acknowledge(leases).await.unwrap();
    let expected = Settlement {
        count: 2,
        lost: vec![first.publication.publication_id],
    };
    assert_eq!(settlement, expected);
    let nothing = jobs.acknowledge([]).await.unwrap();
    assert_eq!(nothing, Settlement::default());
    let fourth = expect(&mut jobs, 4, 1).await;
    let fifth = expect(&mut jobs, 5, 1).await;
    fourth.acknowledge().await.unwrap();
    fifth.acknowledge().await.unwrap();
    assert_eq!(counts(&client).await, (0, 0));
}

#[tokio::test]
async fn what_is_rejected_comes_again_at_once_later_or_as_a_dead_letter() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    publish(&client, 3).await;
    let mut jobs = client.queue("jobs").prefetch(3).await.unwrap();
    let first = expect(&mut jobs, 1, 1).await;
    let second = expect(&mut jobs, 2, 1).await;
    let third = expect(&mut jobs, 3, 1).await;
    assert!(second.reject(Rejection::DeadLetter).await.unwrap());
    assert!(first.reject(Rejection::After(700 * MS)).await.unwrap());
    assert!(third.reject(Rejection::AtOnce).await.unwrap());
    // That of the first one waits.
    let third = expect(&mut jobs, 3, 2).await;
    let first = expect(&mut jobs, 1, 2).await;
    let leases = [first.lease(), third.lease()];
    assert_eq!(jobs.acknowledge(leases).await.unwrap().count, 2);
    counts_are(&client, 0, 0).await;
    let dead: Vec<_> = client
        .log("jobs.dead-letter")
        .publications()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].publication_id, second.publication.publication_id);
    assert_eq!(dead[0].dead_letter.unwrap().subscription_id, jobs.id());
}

#[tokio::test]
async fn extending_keeps_a_lease_beyond_the_ack_timeout() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let settings = SettingsPatch {
        ack_timeout: 1_500.into(),
        ..SettingsPatch::default()
    };
    create(&client, settings).await;
    publish(&client, 2).await;
    let mut jobs = client.queue("jobs").prefetch(2).await.unwrap();
    let kept = expect(&mut jobs, 1, 1).await;
    expect(&mut jobs, 2, 1).await;
    // The second one ends, and comes again.
    let mut again = Box::pin(jobs.next());
    let again = loop {
        tokio::select! {
            delivery = &mut again => break delivery.unwrap().unwrap(),
            () = tokio::time::sleep(100 * MS) => assert!(kept.extend().await.unwrap()),
        }
    };
    assert_eq!((again.publication.sequence.0, again.number()), (2, 2));
    assert!(kept.acknowledge().await.unwrap());
    assert!(again.acknowledge().await.unwrap());
}

/// Loses the connection with everything held.
async fn lose_leases(session: Option<SessionId>) {
    let server = TestServer::start();
    let direct = eager(&server.url()).connect().await.unwrap();
    publish(&direct, 4).await;
    let proxy = Proxy::new(server.address()).await;
    let client = builder(&proxy, session).connect().await.unwrap();
    let mut jobs = client.queue("jobs").prefetch(3).await.unwrap();
    let old = expect(&mut jobs, 1, 1).await;
    let older = expect(&mut jobs, 2, 1).await;
    // The third one has not been taken when the connection ends, so nobody hears of its first delivery.
    counts_are(&direct, 1, 3).await;
    proxy.down().await;
    // Without a connection there is nobody to ask, and nothing to wait for.
    assert!(!within("an answer", old.acknowledge()).await.unwrap());
    proxy.up();
    let new = expect(&mut jobs, 1, 2).await;
    assert_eq!(
        new.publication.publication_id,
        old.publication.publication_id
    );
    let new_second = expect(&mut jobs, 2, 2).await;
    // The handles of the old connection do nothing to the leases of the new one.
    let reject = older.reject(Rejection::DeadLetter).await.unwrap();
    assert!(!old.acknowledge().await.unwrap() && !reject && !older.extend().await.unwrap());
    assert_eq!(counts(&direct).await, (1, 3));
    let leases = [older.lease(), new.lease(), new_second.lease()];
    let settlement = jobs.acknowledge(leases).await.unwrap();
    let expected = Settlement {
        count: 2,
        lost: vec![older.publication.publication_id],
    };
    assert_eq!(settlement, expected);
    let third = expect(&mut jobs, 3, 2).await;
    let fourth = expect(&mut jobs, 4, 1).await;
    assert!(third.acknowledge().await.unwrap() && fourth.acknowledge().await.unwrap());
    assert_eq!(counts(&direct).await, (0, 0));
}

#[tokio::test]
async fn leases_are_lost_with_their_connection() {
    lose_leases(None).await;
}

#[tokio::test]
async fn leases_are_lost_with_the_connection_of_a_durable_session() {
    lose_leases(Some(SessionId::random())).await;
}

#[tokio::test]
async fn a_worker_goes_on_after_a_restart_of_the_server() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    publish(&client, 2).await;
    let mut jobs = client.queue("jobs").await.unwrap();
    assert_eq!(jobs.prefetch(), 32);
    let first = expect(&mut jobs, 1, 1).await;
    assert!(first.acknowledge().await.unwrap());
    let second = expect(&mut jobs, 2, 1).await;
    let server = server.restart();
    let again = expect(&mut jobs, 2, 2).await;
    assert!(!second.acknowledge().await.unwrap());
    assert!(again.acknowledge().await.unwrap());
    drop(server);
}

/// More than the prefetch of who works where connections are cut.
const JOBS: u64 = 3;

/// Works until all of `name` is settled, and gives how often each sequence came.
async fn work(client: &Client, direct: &Client, name: &str) -> HashMap<u64, u64> {
    let subscribe = client.queue(name).prefetch(2).into_future();
    let mut jobs = within("Subscribed", subscribe).await.unwrap();
    let mut came = HashMap::new();
    // What is lost may be settled or not: only the server knows when all is done.
    let all_settled = async {
        loop {
            let meta = direct.get(name).await.unwrap();
            if (meta.pending, meta.in_flight) == (Some(0), Some(0)) {
                return;
            }
            // Many of these ask one server.
            tokio::time::sleep(10 * MS).await;
        }
    };
    let mut all_settled = std::pin::pin!(all_settled);
    loop {
        tokio::select! {
            delivery = delivered(&mut jobs) => {
                *came.entry(delivery.publication.sequence.0).or_insert(0) += 1;
                delivery.acknowledge().await.unwrap();
            }
            () = &mut all_settled, if came.len() as u64 == JOBS => return came,
        }
    }
}

async fn worked_wherever_it_is_cut(durable: bool) {
    let server = &TestServer::start();
    let direct = &eager(&server.url()).connect().await.unwrap();
    let worked = async |name: String, cuts: &[Cut]| {
        for n in 1..=JOBS {
            let publication = direct.publish(&*name, n.to_string()).kind(Kind::Queue);
            publication.await.unwrap();
        }
        let proxy = Proxy::new(server.address()).await;
        proxy.cut(cuts.iter().copied());
        let client = builder(&proxy, durable.then(SessionId::random));
        let came = work(&client.start().unwrap(), direct, &name).await;
        assert_eq!(came.len() as u64, JOBS, "{name}: {came:?}");
        let most = 1 + cuts.len() as u64;
        assert!(
            came.values().all(|count| *count <= most),
            "{name}: {came:?}"
        );
        proxy.carried()
    };
    let whole = worked("undisturbed".into(), &[]).await;
    let to_server = (0..whole.to_server).map(|at| Cut {
        to_server: at,
        to_client: u64::MAX,
    });
    let to_client = (0..whole.to_client).map(|at| Cut {
        to_server: u64::MAX,
        to_client: at,
    });
    stream::iter(to_server.chain(to_client))
        .for_each_concurrent(32, async |cut| {
            worked(format!("cut {cut:?}"), &[cut, cut.halved()]).await;
        })
        .await;
}

#[tokio::test]
async fn everything_is_worked_wherever_a_connection_is_cut() {
    worked_wherever_it_is_cut(false).await;
}

#[tokio::test]
async fn everything_is_worked_wherever_a_durable_one_is_cut() {
    worked_wherever_it_is_cut(true).await;
}

#[tokio::test]
async fn dropping_the_queue_gives_everything_back_at_once() {
    let server = TestServer::start();
    for session in [None, Some(SessionId::random())] {
        let other = eager(&server.url()).connect().await.unwrap();
        publish(&other, 3).await;
        let client = match session {
            Some(session) => eager(&server.url()).session(session),
            None => eager(&server.url()),
        };
        let client = client.connect().await.unwrap();
        let mut jobs = client.queue("jobs").await.unwrap();
        let held = expect(&mut jobs, 1, 1).await;
        counts_are(&other, 0, 3).await;
        assert!(matches!(
            client.queue("jobs").await,
            Err(SubscribeError::AlreadySubscribed)
        ));
        drop(jobs);
        counts_are(&other, 3, 0).await;
        assert!(!held.acknowledge().await.unwrap());
        let again = client.queue("jobs").await.unwrap();
        counts_are(&other, 0, 3).await;
        again.unsubscribe().await.unwrap();
        assert_eq!(counts(&other).await, (3, 0));
        other.delete("jobs").await.unwrap();
    }
}

#[tokio::test]
async fn what_a_resumed_session_holds_waits_for_the_application_but_not_for_long() {
    let server = TestServer::start();
    let direct = eager(&server.url()).connect().await.unwrap();
    publish(&direct, 2).await;
    let session = SessionId::random();
    let connect = || eager(&server.url()).session(session).connect();
    let first = connect().await.unwrap();
    let _jobs = first.queue("jobs").prefetch(1).await.unwrap();
    counts_are(&direct, 1, 1).await;

    let second = connect().await.unwrap();
    counts_are(&direct, 1, 1).await;
    let mut jobs = second.queue("jobs").prefetch(2).await.unwrap();
    let leased = expect(&mut jobs, 1, 2).await;
    expect(&mut jobs, 2, 1).await;
    assert!(leased.acknowledge().await.unwrap());

    // The third one never asks for it.
    let third = connect().await.unwrap();
    counts_are(&direct, 1, 0).await;
    let mut jobs = third.queue("jobs").await.unwrap();
    let last = delivered(&mut jobs).await;
    assert_eq!(last.publication.sequence.0, 2);
    assert!(last.acknowledge().await.unwrap());
}

#[tokio::test]
async fn deletion_ends_the_work_with_an_error() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let other = eager(&server.url()).connect().await.unwrap();
    for deleting in [&client, &other] {
        let mut jobs = client.queue("jobs").await.unwrap();
        deleting.delete("jobs").await.unwrap();
        let ended = within("the end", jobs.next()).await.unwrap();
        assert!(matches!(ended, Err(SubscribeError::Deleted)));
        assert!(jobs.next().await.is_none());
    }
}

#[tokio::test]
async fn the_kinds_are_not_mistaken_for_each_other() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    publish(&client, 1).await;
    client.publish("news", "one").await.unwrap();
    let refused = client.queue("news").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::KindMismatch));
    let refused = client.subscribe("jobs").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::KindMismatch));
    assert_eq!(counts(&client).await, (1, 0));
    let refused = client.queue("jobs").prefetch(0).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidArgument));
}

#[tokio::test]
async fn settings_of_a_queue_are_made_and_changed() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let settings = SettingsPatch {
        ack_timeout: 5_000.into(),
        max_deliveries: 3.into(),
        dead_letter: infotainer::protocol::Patch::Value("given up".into()),
        ..SettingsPatch::default()
    };
    create(&client, settings).await;
    let settings = SettingsPatch {
        max_deliveries: 0.into(),
        ..SettingsPatch::default()
    };
    let meta = client.update("jobs", settings).await.unwrap();
    assert_eq!(meta.kind, Kind::Queue);
    assert_eq!(meta.settings.ack_timeout, Some(5_000));
    assert_eq!(meta.settings.max_deliveries, Some(0));
    let dead_letter = infotainer::protocol::SubscriptionReference::from("given up");
    assert_eq!(meta.settings.dead_letter, Some(dead_letter.id));
}

#[tokio::test]
async fn more_leases_than_a_message_holds_are_settled_all_the_same() {
    const COUNT: u64 = 12_000;
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    create(
        &client,
        SettingsPatch {
            durability: Durability::Memory.into(),
            ..SettingsPatch::default()
        },
    )
    .await;
    let publications = (0..COUNT).map(|_| client.publish("jobs", "x").into_future());
    join_all(publications).await;
    let mut jobs = client.queue("jobs").prefetch(u16::MAX).await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..COUNT {
        leases.push(delivered(&mut jobs).await.lease());
    }
    let settlement = jobs.acknowledge(leases).await.unwrap();
    assert_eq!(settlement.count, COUNT);
    assert_eq!(settlement.lost, []);
    assert_eq!(counts(&client).await, (0, 0));
}
