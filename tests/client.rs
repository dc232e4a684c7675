//! The client against the real server, through a proxy that cuts connections where the test wants.
//!
//! Nothing here paces itself by sleeping: what is waited for is an answer, an event, or the proxy's own count of connections.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod client_support;
#[path = "client/queues.rs"]
mod queues;
#[path = "client/tokens.rs"]
mod tokens;

use std::{collections::HashSet, time::Duration};

use client_support::{Cut, PATIENCE, Peer, Proxy, TestServer, within};
use futures_util::{SinkExt, StreamExt, TryStreamExt, future::join_all, stream};
use infotainer::{
    client::{
        Client, Closed, ConnectionError, Event, Gap, GapCause, PublishError, Reconnect,
        RequestError, Status, SubscribeError, Subscription,
    },
    protocol::{
        Durability, ErrorCode, Kind, PublicationId, Retention, Sequence, SessionId, SettingsPatch,
        SubscribeFrom,
    },
};

use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

const MS: Duration = Duration::from_millis(1);

/// A client that comes back at once.
fn eager(url: &str) -> infotainer::client::Builder {
    Client::builder(url)
        .reconnect(Reconnect::pauses(MS, 4 * MS))
        .request_timeout(PATIENCE)
}

async fn next(subscription: &mut Subscription) -> Event {
    within("an event", subscription.next())
        .await
        .expect("the stream goes on")
        .expect("no error")
}

/// The sequence of the next event, which is a publication.
async fn next_sequence(subscription: &mut Subscription) -> u64 {
    match next(subscription).await {
        Event::Publication(publication) => publication.sequence.0,
        other => panic!("no publication: {other:?}"),
    }
}

async fn stored(client: &Client, name: &str) -> Vec<PublicationId> {
    let stored: Vec<_> = client
        .log(name)
        .publications()
        .try_collect()
        .await
        .expect("the log can be read");
    let sequences: Vec<_> = stored.iter().map(|one| one.sequence.0).collect();
    assert_eq!(sequences, (1..=stored.len() as u64).collect::<Vec<_>>());
    stored.iter().map(|one| one.publication_id).collect()
}

const PUBLICATIONS: u64 = 6;

/// One whole conversation: subscribes, publishes pipelined, takes what comes, and closes.
async fn conversation(client: Client, name: &str, from: SubscribeFrom) -> Vec<PublicationId> {
    let mut subscription = within(
        "Subscribed",
        client.subscribe(name).from(from).into_future(),
    )
    .await
    .expect("subscribed");
    let mut under_way = Vec::new();
    for n in 1..=PUBLICATIONS {
        let publication = client.publish(name, format!("publication {n}"));
        under_way.push(publication.send().await.expect("sent"));
    }
    let mut ids = Vec::new();
    for (acknowledgement, n) in under_way.into_iter().zip(1..) {
        let id = acknowledgement.publication_id();
        let submitted = within("Submitted", acknowledgement.into_future())
            .await
            .expect("submitted");
        assert_eq!((submitted.publication_id, submitted.sequence.0), (id, n));
        ids.push(id);
    }
    for n in 1..=PUBLICATIONS {
        assert_eq!(next_sequence(&mut subscription).await, n, "{name}");
    }
    within("the goodbye", client.close()).await;
    ids
}

/// How many bytes an undisturbed conversation has in each direction.
async fn undisturbed(server: &TestServer, session: Option<SessionId>) -> Cut {
    let proxy = Proxy::new(server.address()).await;
    let name = format!("undisturbed {}", session.is_some());
    let client = builder(&proxy, session).start().unwrap();
    conversation(client, &name, SubscribeFrom::First).await;
    proxy.carried()
}

fn builder(proxy: &Proxy, session: Option<SessionId>) -> infotainer::client::Builder {
    let builder = eager(&proxy.url());
    match session {
        Some(session) => builder.session(session),
        None => builder,
    }
}

/// Has the conversation with the first two connections cut, for every place to cut at, and holds the log to it.
async fn cut_everywhere(durable: bool) {
    let server = TestServer::start();
    let session = || durable.then(SessionId::random);
    let whole = undisturbed(&server, session()).await;
    let direct = eager(&server.url()).connect().await.unwrap();
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
            let name = format!("cut {cut:?}");
            let proxy = Proxy::new(server.address()).await;
            // The second one is cut elsewhere, so that what is sent again is cut too.
            proxy.cut([cut, cut.halved()]);
            let client = builder(&proxy, session()).start().unwrap();
            let ids = conversation(client, &name, SubscribeFrom::First).await;
            assert_eq!(stored(&direct, &name).await, ids, "{name}");
        })
        .await;
}

#[tokio::test]
async fn publications_are_logged_and_delivered_once_wherever_a_connection_is_cut() {
    cut_everywhere(false).await;
}

#[tokio::test]
async fn publications_are_logged_and_delivered_once_wherever_a_durable_one_is_cut() {
    cut_everywhere(true).await;
}

#[tokio::test]
async fn publications_under_way_survive_a_restart_of_the_server() {
    let mut server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let mut subscription = client.subscribe("news").await.unwrap();
    let publishing = tokio::spawn({
        let client = client.clone();
        async move {
            let publications = (0..3_000).map(|n: u32| client.publish("news", n.to_string()));
            join_all(publications.map(IntoFuture::into_future)).await
        }
    });
    for n in 1..=500 {
        assert_eq!(next_sequence(&mut subscription).await, n);
    }
    server = server.restart();
    for n in 501..=3_000 {
        assert_eq!(next_sequence(&mut subscription).await, n);
    }
    let submitted: HashSet<_> = publishing
        .await
        .unwrap()
        .into_iter()
        .map(|result| result.expect("submitted").sequence.0)
        .collect();
    assert_eq!(submitted.len(), 3_000);
    assert_eq!(stored(&client, "news").await.len(), 3_000);
    drop(server);
}

#[tokio::test]
async fn what_a_durable_session_has_not_done_with_comes_again_to_its_next_client() {
    let server = TestServer::start();
    let session = SessionId::random();
    let connect = || eager(&server.url()).session(session).connect();
    let first = connect().await.unwrap();
    let mut subscription = first.subscribe("news").await.unwrap();
    for n in 1..=5 {
        first.publish("news", n.to_string()).await.unwrap();
    }
    for n in 1..=3 {
        assert_eq!(next_sequence(&mut subscription).await, n);
    }
    first.close().await;

    // Three were taken, and asking for the third has done with two.
    let second = connect().await.unwrap();
    let mut subscription = second.subscribe("news").await.unwrap();
    assert_eq!(subscription.position(), Sequence(2));
    assert_eq!(next_sequence(&mut subscription).await, 3);
    assert_eq!(next_sequence(&mut subscription).await, 4);
    second.close().await;

    let third = connect().await.unwrap();
    let mut subscription = third.subscribe("news").acknowledge_by_hand().await.unwrap();
    for n in 4..=5 {
        assert_eq!(next_sequence(&mut subscription).await, n);
    }
    third.close().await;

    // Nothing was acknowledged, so the same come again.
    let fourth = connect().await.unwrap();
    let mut subscription = fourth
        .subscribe("news")
        .acknowledge_by_hand()
        .await
        .unwrap();
    for n in 4..=5 {
        assert_eq!(next_sequence(&mut subscription).await, n);
    }
    let settled = subscription.acknowledge(Sequence(5)).await.unwrap();
    assert_eq!(settled.subscription_id, subscription.id());
    fourth.close().await;

    let fifth = connect().await.unwrap();
    let mut subscription = fifth.subscribe("news").await.unwrap();
    fifth.publish("news", "6").await.unwrap();
    assert_eq!(next_sequence(&mut subscription).await, 6);
}

#[tokio::test]
async fn client_that_was_taken_over_does_not_come_back() {
    let server = TestServer::start();
    let proxy = Proxy::new(server.address()).await;
    let session = SessionId::random();
    let first = eager(&proxy.url())
        .session(session)
        .connect()
        .await
        .unwrap();
    let mut subscription = first.subscribe("news").await.unwrap();
    let second = eager(&server.url())
        .session(session)
        .connect()
        .await
        .unwrap();
    let error = within("the end", subscription.next())
        .await
        .unwrap()
        .unwrap_err();
    let code = |closed: &Closed| match closed {
        Closed::ByServer(ConnectionError::Closed { code, .. }) => *code,
        other => panic!("{other:?}"),
    };
    let SubscribeError::Closed(closed) = error else {
        panic!("{error:?}");
    };
    assert_eq!(code(&closed), 4502);
    assert!(subscription.next().await.is_none());
    match first.publish("news", "x").await.unwrap_err() {
        PublishError::Closed(closed) => assert_eq!(code(&closed), 4502),
        other => panic!("{other:?}"),
    }
    assert!(matches!(&*first.status().borrow(), Status::Closed(_)));
    assert_eq!(proxy.connections(), 1);
    second.ping().await.unwrap();
}

#[tokio::test]
async fn what_retention_took_is_told_as_a_gap() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let settings = SettingsPatch {
        retention: Retention {
            max_publications: Some(2),
            ..Retention::default()
        }
        .into(),
        ..SettingsPatch::default()
    };
    client.create("news", None, settings).await.unwrap();
    for n in 1..=6 {
        client.publish("news", n.to_string()).await.unwrap();
    }
    let epoch = client.get("news").await.unwrap().epoch;
    within("retention", async {
        while client.get("news").await.unwrap().first_sequence != Sequence(5) {}
    })
    .await;
    let mut subscription = client
        .subscribe("news")
        .from(SubscribeFrom::After(Sequence(1)))
        .epoch(epoch)
        .await
        .unwrap();
    assert_eq!(
        next(&mut subscription).await,
        Event::Gap(Gap {
            from: Sequence(2),
            to: Sequence(4),
            cause: GapCause::Retention
        })
    );
    assert_eq!(next_sequence(&mut subscription).await, 5);
    assert_eq!(next_sequence(&mut subscription).await, 6);
}

#[tokio::test]
async fn log_that_began_anew_meanwhile_is_told_as_not_recovered() {
    let server = TestServer::start();
    let direct = eager(&server.url()).connect().await.unwrap();
    let proxy = Proxy::new(server.address()).await;
    let client = eager(&proxy.url()).connect().await.unwrap();
    let mut subscription = client.subscribe("news").await.unwrap();
    direct.publish("news", "old").await.unwrap();
    assert_eq!(next_sequence(&mut subscription).await, 1);
    let epoch = subscription.epoch();

    proxy.down().await;
    direct.delete("news").await.unwrap();
    direct.publish("news", "new").await.unwrap();
    proxy.up();

    let Event::NotRecovered(lost) = next(&mut subscription).await else {
        panic!("recovered");
    };
    assert_eq!(lost.previous, Some((epoch, Sequence(1))));
    assert_eq!(lost.cursor, Sequence::ZERO);
    assert_eq!(lost.epoch, direct.get("news").await.unwrap().epoch);
    assert_eq!(next_sequence(&mut subscription).await, 1);
    assert_eq!(subscription.epoch(), lost.epoch);
}

#[tokio::test]
async fn position_of_another_epoch_is_told_as_not_recovered() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    client.publish("news", "one").await.unwrap();
    let mut subscription = client
        .subscribe("news")
        .from(SubscribeFrom::After(Sequence(1)))
        .epoch(infotainer::protocol::Epoch::random())
        .await
        .unwrap();
    assert!(matches!(
        next(&mut subscription).await,
        Event::NotRecovered(lost) if lost.cursor == Sequence::ZERO
    ));
    assert_eq!(next_sequence(&mut subscription).await, 1);
}

#[tokio::test]
async fn deletion_is_told_at_once_and_ends_the_stream() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let other = eager(&server.url()).connect().await.unwrap();
    for deleting in [&client, &other] {
        let mut subscription = client.subscribe("news").await.unwrap();
        deleting.delete("news").await.unwrap();
        assert_eq!(next(&mut subscription).await, Event::Deleted);
        assert!(subscription.next().await.is_none());
    }
}

#[tokio::test]
async fn deletion_is_told_to_a_durable_session_that_was_away() {
    let server = TestServer::start();
    let direct = eager(&server.url()).connect().await.unwrap();
    let proxy = Proxy::new(server.address()).await;
    let session = SessionId::random();
    let client = eager(&proxy.url())
        .session(session)
        .connect()
        .await
        .unwrap();
    let mut subscription = client.subscribe("news").await.unwrap();
    // A session that holds nothing is forgotten.
    let _other = client.subscribe("other").await.unwrap();
    proxy.down().await;
    direct.delete("news").await.unwrap();
    direct.publish("news", "new").await.unwrap();
    proxy.up();
    assert_eq!(next(&mut subscription).await, Event::Deleted);
    assert!(subscription.next().await.is_none());
}

#[tokio::test]
async fn refusals_say_their_code() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let error = client.get("nothing").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    let error = client.delete("nothing").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    client.publish("news", "one").await.unwrap();
    let expecting = client.publish("news", "x").expected_sequence(Sequence(7));
    let error = expecting.await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Conflict));
    let error = client.subscribe("\u{7f}").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidArgument));
    let error = client.acknowledge("news", Sequence(1)).await.unwrap_err();
    assert!(error.code().is_some(), "{error:?}");
    let durability = SettingsPatch {
        durability: Durability::Memory.into(),
        ..SettingsPatch::default()
    };
    let error = client
        .create("news", Some(Kind::Broadcast), durability)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Conflict));
    let _held = client.subscribe("news").await.unwrap();
    assert!(matches!(
        client.subscribe("news").await,
        Err(SubscribeError::AlreadySubscribed)
    ));
}

#[tokio::test]
async fn publication_that_the_server_would_not_take_is_not_sent() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    match client
        .publish("news", vec![0; 300 << 10])
        .await
        .unwrap_err()
    {
        PublishError::TooLarge { size, limit } => assert!(size as u64 > limit),
        other => panic!("{other:?}"),
    }
    // The connection is the same as before.
    client.publish("news", "small").await.unwrap();
}

#[tokio::test]
async fn failure_to_connect_says_what_failed() {
    let server = TestServer::start();
    let wrong_path = format!("ws://{}/elsewhere", server.address());
    match Client::connect(&wrong_path).await.unwrap_err() {
        ConnectionError::Refused { status: 404, .. } => {}
        other => panic!("{other:?}"),
    }
    // It is not tried again in the background either.
    let client = eager(&wrong_path).start().unwrap();
    match client.ping().await.unwrap_err() {
        RequestError::Closed(Closed::ByServer(ConnectionError::Refused {
            status: 404, ..
        })) => {}
        other => panic!("{other:?}"),
    }
    let url = server.url();
    server.stop();
    match Client::connect(&url).await.unwrap_err() {
        ConnectionError::Io(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        other => panic!("{other:?}"),
    }
    let client = eager(&url)
        .reconnect(Reconnect::pauses(MS, MS).attempts(3))
        .start()
        .unwrap();
    match client.ping().await.unwrap_err() {
        RequestError::Closed(Closed::GaveUp(ConnectionError::Io(_))) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn request_without_an_answer_ends_in_time() {
    let server = TestServer::start();
    let proxy = Proxy::new(server.address()).await;
    let client = eager(&proxy.url())
        .request_timeout(20 * MS)
        .connect()
        .await
        .unwrap();
    proxy.down().await;
    let id = PublicationId(uuid::Uuid::now_v7());
    match client.publish("news", "x").id(id).await.unwrap_err() {
        PublishError::TimedOut { publication_id } => assert_eq!(publication_id, id),
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.ping().await, Err(RequestError::TimedOut)));
}

#[tokio::test]
async fn client_comes_back_after_a_close_that_asks_for_it_and_after_silence() {
    let peer = Peer::new().await;
    let client = eager(&peer.url()).start().unwrap();
    let ping = tokio::spawn(async move { client.ping().await });
    let mut socket = peer.welcome(60_000).await;
    let close = CloseFrame {
        code: 4008.into(),
        reason: "nothing heard".into(),
    };
    socket.close(Some(close)).await.unwrap();
    // Says nothing, not even a heartbeat.
    let silent = peer.welcome(5).await;
    let mut socket = peer.welcome(60_000).await;
    let asked = within("the request", socket.next()).await.unwrap().unwrap();
    assert_eq!(&asked.into_data()[..], b"\x82\x00\x64Ping");
    let pong = Message::binary(&b"\x82\x00\xa1\x64Pong\xa1\x64time\x07"[..]);
    socket.send(pong).await.unwrap();
    assert_eq!(within("Pong", ping).await.unwrap().unwrap().0, 7);
    drop(silent);
}

#[tokio::test]
async fn peer_that_speaks_something_else_is_told_apart() {
    let peer = Peer::new().await;
    for message in [
        Message::text("hello"),
        Message::binary(&b"\xff"[..]),
        Message::binary(&b"\xa1\x64Pong\xa1\x64time\x07"[..]),
    ] {
        let connecting = tokio::spawn(eager(&peer.url()).connect());
        let mut socket = peer.accept().await;
        socket.send(message).await.unwrap();
        let error = within("the end", connecting).await.unwrap().unwrap_err();
        assert!(matches!(error, ConnectionError::Protocol(_)), "{error:?}");
    }
}

#[tokio::test]
async fn garbage_ends_a_connection_but_not_the_client() {
    let peer = Peer::new().await;
    let client = eager(&peer.url()).start().unwrap();
    let mut socket = peer.welcome(60_000).await;
    let garbage = Message::binary(&b"\xa1\x64Pong\xa1\x64time\x61x"[..]);
    socket.send(garbage).await.unwrap();
    let _again = peer.welcome(60_000).await;
    drop(client);
}

/// A reader that does not read, on a connection that has other things to do.
async fn slow_reader(session: Option<SessionId>) {
    const COUNT: u64 = 3_000;
    let server = TestServer::start();
    let builder = eager(&server.url());
    let client = match session {
        Some(session) => builder.session(session),
        None => builder,
    };
    let client = client.connect().await.unwrap();
    let mut slow = client.subscribe("news").buffer(16, 1 << 20).await.unwrap();
    let payload = vec![7; 2_000];
    // The answers come although nobody reads what they stand behind.
    let publications = (0..COUNT).map(|_| client.publish("news", payload.clone()));
    for submitted in join_all(publications.map(IntoFuture::into_future)).await {
        submitted.unwrap();
    }
    for n in 1..=COUNT {
        assert_eq!(next_sequence(&mut slow).await, n);
        // Now and then it waits for an answer itself.
        if n % 500 == 0 {
            client.ping().await.unwrap();
        }
    }
}

#[tokio::test]
async fn slow_reader_misses_nothing_and_holds_up_no_answer() {
    slow_reader(None).await;
}

#[tokio::test]
async fn slow_reader_of_a_durable_session_misses_nothing_and_holds_up_no_answer() {
    slow_reader(Some(SessionId::random())).await;
}

#[tokio::test]
async fn log_is_read_in_pages_ids_and_all_at_once() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    for n in 1..=25 {
        client.publish("news", n.to_string()).await.unwrap();
    }
    let pages: Vec<_> = client
        .log("news")
        .after(Sequence(3))
        .page_size(10)
        .pages()
        .map_ok(|page| page.publications.len())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(pages, [10, 10, 2]);
    let ids = stored(&client, "news").await;
    let index: Vec<_> = client
        .log("news")
        .page_size(10)
        .index()
        .map_ok(|index| index.entries)
        .try_concat()
        .await
        .unwrap();
    assert_eq!(index, ids);
    let unknown = PublicationId(uuid::Uuid::nil());
    let page = client
        .entries("news", [ids[4], unknown, ids[1]])
        .await
        .unwrap();
    let found: Vec<_> = page.publications.iter().map(|one| one.sequence.0).collect();
    assert_eq!((found, page.missing), (vec![2, 5], vec![unknown]));
    let nothing = client.log("nothing").publications().next().await.unwrap();
    assert_eq!(nothing.unwrap_err().code(), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn subscriptions_are_made_changed_listed_and_deleted() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let retention = Retention {
        max_age: Some(60_000),
        ..Retention::default()
    };
    for n in 0..150 {
        let settings = SettingsPatch::default();
        client
            .create(format!("s{n}"), None, settings)
            .await
            .unwrap();
    }
    let settings = SettingsPatch {
        retention: retention.into(),
        ..SettingsPatch::default()
    };
    let meta = client.update("s7", settings).await.unwrap();
    assert_eq!(meta.settings.retention, retention);
    assert_eq!(client.get("s7").await.unwrap(), meta);
    client.delete("s8").await.unwrap();
    let all: Vec<_> = client.list().try_collect().await.unwrap();
    assert_eq!(all.len(), 149);
    let names: HashSet<_> = all.into_iter().map(|meta| meta.settings.name).collect();
    assert!(names.contains(&Some("s7".into())) && !names.contains(&Some("s8".into())));
}

#[tokio::test]
async fn closing_waits_for_the_answers_under_way() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let mut subscription = client.subscribe("news").await.unwrap();
    let mut under_way = Vec::new();
    for n in 0..100 {
        under_way.push(client.publish("news", n.to_string()).send().await.unwrap());
    }
    client.clone().close().await;
    for acknowledgement in under_way {
        acknowledgement.await.unwrap();
    }
    // What was delivered before the goodbye can still be taken.
    let mut last = 0;
    while let Some(event) = within("the end", subscription.next()).await {
        let Event::Publication(publication) = event.unwrap() else {
            panic!("no publication");
        };
        last += 1;
        assert_eq!(publication.sequence.0, last);
    }
    assert!(matches!(
        client.publish("news", "late").await,
        Err(PublishError::Closed(Closed::ByClient))
    ));
}

#[tokio::test]
async fn dropped_subscription_is_given_up_by_a_transient_session() {
    let server = TestServer::start();
    let client = eager(&server.url()).connect().await.unwrap();
    let subscription = client.subscribe("news").await.unwrap();
    assert_eq!(client.get("news").await.unwrap().subscribers, 1);
    drop(subscription);
    assert_eq!(client.get("news").await.unwrap().subscribers, 0);
    let subscription = client.subscribe("news").await.unwrap();
    subscription.unsubscribe().await.unwrap();
    assert_eq!(client.get("news").await.unwrap().subscribers, 0);
}
