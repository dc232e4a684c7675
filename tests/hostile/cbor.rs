//! What no good client sends: messages broken at random, and messages made to cost as much as they can.

use std::{collections::BTreeMap, panic::catch_unwind, time::Instant};

use bytes::Bytes;
use infotainer::protocol::{
    ErrorCode,
    codec::{Rejection, decode_request, decode_response},
};

use crate::{
    allocated::peak_of,
    mutation::{CLIENT, Mutator, messages, seed},
    support::{Cbor, Process, Raw, Response, encode, named},
};

/// How many messages are broken.
const MUTATIONS: usize = 100_000;

/// Of these, how many go over a socket.
const SENT: usize = 6_000;

/// Connections that they go over at once.
const CONNECTIONS: usize = 8;

const MIB: usize = 1 << 20;

/// The longest message of a fresh installation.
const LONGEST: usize = 256 << 10;

/// What taking a message of so many bytes apart may cost for a moment.
fn allowed(len: usize) -> usize {
    (32 << 10) + 64 * len
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes a message, which must neither panic nor cost much; gives how it was refused, if it was.
fn decode(message: Vec<u8>) -> (Option<Rejection>, usize) {
    let message = Bytes::from(message);
    let Ok((decoded, peak)) = catch_unwind(|| peak_of(|| decode_request(&message))) else {
        panic!("this message: {}", hex(&message));
    };
    (decoded.err(), peak)
}

#[test]
fn a_hundred_thousand_broken_messages_are_told_so_and_cost_no_more_than_they_are_long() {
    let mut mutator = Mutator::of_what_clients_send(seed());
    let mut most = 0;
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..MUTATIONS {
        let message = mutator.next();
        let (rejection, peak) = decode(message.clone());
        assert!(
            peak <= allowed(message.len()),
            "{peak} bytes for {}",
            hex(&message)
        );
        most = most.max(peak);
        if let Some(rejection) = rejection {
            let code = rejection.error.code;
            assert!(
                matches!(
                    code,
                    ErrorCode::Malformed | ErrorCode::UnknownCommand | ErrorCode::InvalidArgument
                ),
                "{code} for {}",
                hex(&message)
            );
            assert!(rejection.error.message.len() < 1_000, "{}", hex(&message));
            *refused.entry(code.to_string()).or_default() += 1;
        }
    }
    println!("refused: {refused:?}; the dearest cost {most} bytes");
    // Broken in many ways, and some are still right.
    assert_eq!(refused.len(), 3);
    assert!(refused.values().all(|count| *count > MUTATIONS / 100));
    assert!(refused.values().sum::<usize>() < MUTATIONS * 99 / 100);
}

#[test]
fn every_message_is_malformed_wherever_it_is_cut() {
    for message in messages(CLIENT) {
        // Of those that are malformed anyway, some have too much.
        if decode(message.clone()).0.is_some() {
            continue;
        }
        for end in 0..message.len() {
            let (rejection, peak) = decode(message[..end].to_vec());
            let code = rejection.map(|rejection| rejection.error.code);
            assert_eq!(code, Some(ErrorCode::Malformed), "{}", hex(&message[..end]));
            assert!(peak <= allowed(end), "{peak} bytes for {}", hex(&message));
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    encode(&text.cbor())
}

/// `[1, {name: {"subscription_id": "x", "log_id": "x", key: value}}]`, in bytes: what is in front is right, so that `value` is looked into.
fn with_field(name: &str, key: &str, value: &[u8]) -> Vec<u8> {
    let references =
        ["subscription_id", "log_id"].map(|reference| [text(reference), text("x")].concat());
    [
        &[0x82, 0x01, 0xa1],
        &text(name)[..],
        &[0xa3],
        &references.concat(),
        &text(key),
        value,
    ]
    .concat()
}

/// Begins, then the same again and again until the message is as long as it may be, then ends.
fn filled(begin: &[u8], mut more: impl FnMut(usize) -> Vec<u8>, end: &[u8]) -> Vec<u8> {
    let mut bytes = begin.to_vec();
    for number in 0.. {
        let next = more(number);
        if 128 + bytes.len() + next.len() + end.len() > LONGEST {
            break;
        }
        bytes.extend(next);
    }
    bytes.extend_from_slice(end);
    bytes
}

/// Messages that make whoever takes them apart remember, join or count as much as possible.
fn dearest() -> Vec<(&'static str, Vec<u8>)> {
    let unsigned = |number: usize| [&[0x19], &(number as u16).to_be_bytes()[..]].concat();
    let short_text = |number: usize| [&[0x62], &(number as u16).to_be_bytes()[..]].concat();
    let pair = |key: Vec<u8>| [key, vec![0]].concat();
    let uuid = |number: usize| [&[0x50; 9], &number.to_be_bytes()[..]].concat();
    let repeat = |bytes: &'static [u8]| move |_| bytes.to_vec();
    vec![
        (
            "numbers as keys",
            [
                &[0xa1][..],
                &text("Ping"),
                &filled(&[0xbf], |number| pair(unsigned(number)), &[0xff]),
            ]
            .concat(),
        ),
        (
            "texts as keys of the settings",
            with_field(
                "CreateSubscription",
                "settings",
                &filled(&[0xbf], |number| pair(short_text(number)), &[0xff]),
            ),
        ),
        (
            "keys of `from`",
            with_field(
                "Subscribe",
                "from",
                &filled(&[0xbf], |number| pair(unsigned(number)), &[0xff]),
            ),
        ),
        (
            "different ids",
            with_field("GetLogEntries", "entries", &filled(&[0x9f], uuid, &[0xff])),
        ),
        (
            "ids that are declared, and are none",
            with_field(
                "GetLogEntries",
                "entries",
                &[&[0x9a, 0, 3, 0, 0], &[0; 3 << 16][..]].concat(),
            ),
        ),
        (
            "a submission of numbers",
            with_field(
                "SubmitPublication",
                "submission",
                &[&[0x9a, 0, 3, 0, 0], &[1; 3 << 16][..]].concat(),
            ),
        ),
        (
            "a submission in chunks of a byte",
            with_field(
                "SubmitPublication",
                "submission",
                &filled(&[0x5f], repeat(b"\x41x"), &[0xff]),
            ),
        ),
        (
            "a submission in chunks of nothing",
            with_field(
                "SubmitPublication",
                "submission",
                &filled(&[0x5f], repeat(b"\x40"), &[0xff]),
            ),
        ),
        (
            "a name in chunks of a byte",
            [
                &[0xa1][..],
                &text("GetSubscription"),
                &[0xa1],
                &text("subscription_id"),
                &filled(&[0x7f], repeat(b"\x61x"), &[0xff]),
            ]
            .concat(),
        ),
        (
            "a command's name in chunks of a byte",
            filled(&[0x7f], repeat(b"\x61x"), &[0xff]),
        ),
        (
            "a long key in chunks",
            [
                &[0xa1][..],
                &text("Ping"),
                &[0xa1],
                &filled(&[0x7f], repeat(b"\x61x"), &[0xff]),
                &[0],
            ]
            .concat(),
        ),
        (
            "arrays in arrays, over and over",
            with_field(
                "Ping",
                "x",
                &filled(&[0x9f], |_| [&[0x81; 59][..], &[0]].concat(), &[0xff]),
            ),
        ),
        (
            "tags in front of everything",
            with_field(
                "Extend",
                "publication_ids",
                &filled(
                    &[0x9f],
                    |number| [&[0xd8, 37].repeat(50), &uuid(number)[..]].concat(),
                    &[0xff],
                ),
            ),
        ),
        ("nested as deep as it is long", vec![0x81; LONGEST]),
        ("tagged as often as it is long", vec![0xc1; LONGEST]),
        ("beginnings of maps", vec![0xbf; LONGEST]),
        ("beginnings of byte strings", vec![0x5f; LONGEST]),
    ]
}

#[test]
fn the_dearest_messages_cost_a_few_megabytes_and_no_time() {
    for (what, message) in dearest() {
        assert!(message.len() <= LONGEST, "{what}: {}", message.len());
        let begun = Instant::now();
        let (rejection, peak) = decode(message);
        let code = rejection.map(|rejection| rejection.error.code);
        println!("{what}: {peak} bytes, {:?}, {code:?}", begun.elapsed());
        assert!(peak <= 8 * MIB, "{what}: {peak} bytes");
        // Whatever is quadratic takes minutes.
        assert!(begun.elapsed().as_secs() < 5, "{what}");
    }
}

/// Sends frames over connection after connection, and reads what comes back, until all are sent; a connection that the server closes is
/// followed by another.
async fn send_all(server: std::net::SocketAddr, messages: Vec<Vec<u8>>) -> (usize, usize) {
    let (mut answers, mut closed) = (0, 0);
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let mut raw = Raw::open(server, "/ws").await;
        // So many are pipelined, then the answers are awaited up to the barrier.
        let mut is_open = true;
        while is_open && messages.peek().is_some() {
            let mut bytes = Vec::new();
            for message in messages.by_ref().take(50) {
                bytes.extend(Raw::frame(0x82, &message));
            }
            let barrier = serde_cbor::Value::Array(vec![
                serde_cbor::Value::Integer(BARRIER.into()),
                named("Ping", fields! {}),
            ]);
            bytes.extend(Raw::frame(0x82, &encode(&barrier)));
            is_open = raw.try_write(&bytes).await;
            loop {
                let Some(frame) = raw.read().await else {
                    is_open = false;
                    break;
                };
                match frame.opcode {
                    2 => {
                        let response = Response::decode(&frame.payload);
                        if response.id == Some(BARRIER) && response.name == "Pong" {
                            break;
                        }
                        answers += 1;
                    }
                    8 => {
                        assert_eq!(frame.close_code(), 4503);
                        closed += 1;
                        is_open = false;
                        break;
                    }
                    9 => {}
                    other => panic!("opcode {other}"),
                }
            }
        }
    }
    (answers, closed)
}

/// The request id of what is sent behind the others. No vector has it.
const BARRIER: u64 = (1 << 53) - 11;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_messages_over_sockets_are_answered_or_close_and_the_server_goes_on() {
    let server = Process::start(&[("DURABILITY", "Memory"), ("WORKERS", "2")]);
    let mut witness = server.client().await;
    witness.subscribe("witnessed", "New").await;
    let mut mutator = Mutator::of_what_clients_send(seed());
    // What a server needs once, it needs for the first of them.
    let warm_up = (0..500).map(|_| mutator.next()).collect();
    send_all(server.address(), warm_up).await;
    let before = server.memory();
    let sending: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let messages = (0..SENT / CONNECTIONS).map(|_| mutator.next()).collect();
            tokio::spawn(send_all(server.address(), messages))
        })
        .collect();
    let (mut answers, mut closed) = (0, 0);
    for sending in sending {
        let (more_answers, more_closed) = sending.await.unwrap();
        answers += more_answers;
        closed += more_closed;
    }
    for (_, message) in dearest() {
        send_all(server.address(), vec![message]).await;
    }
    witness.publish("witnessed", b"x").await;
    witness.publication(1).await;
    let grown = server.memory().saturating_sub(before);
    println!("{SENT} were sent: {answers} answers, {closed} closed, {grown} bytes");
    assert!(answers > SENT / 2);
    assert!(grown < 16 * MIB as u64, "{grown} bytes");
    let said = server.said();
    assert!(!said.contains("panic"), "{said}");
    // It ends in order, as one does that nobody tried to break.
    let mut server = server;
    drop(witness);
    server.signal("-TERM");
    assert!(server.exited().await.success());
}

#[test]
fn what_a_broken_server_says_is_no_trouble_for_a_client() {
    let mut mutator = Mutator::of_what_servers_send(seed());
    for _ in 0..MUTATIONS / 4 {
        let message = Bytes::from(mutator.next());
        let Ok((_, peak)) = catch_unwind(|| peak_of(|| decode_response(&message).is_ok())) else {
            panic!("this message: {}", hex(&message));
        };
        assert!(
            peak <= allowed(message.len()),
            "{peak} bytes for {}",
            hex(&message)
        );
    }
}
