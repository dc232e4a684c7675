use proptest::prelude::*;

use super::*;
use crate::{
    domain::{LogNumber, LogSource},
    protocol::{Publication, PublicationId, Timestamp, json::convert_frames},
};

const LIMIT: usize = 1000;

fn subscriber(name: &str) -> Rc<Subscriber> {
    Rc::new(Subscriber::new(
        SubscriptionId::of_name(name),
        LogNumber(1),
        LogSource::Disk,
        Sequence::ZERO,
    ))
}

fn answer(outbox: &mut Outbox, bytes: &[u8], commands: u32) {
    outbox.answers().unwrap().extend_from_slice(bytes);
    outbox.answered(Credited {
        commands,
        bytes: u64::from(commands) * 10,
    });
}

/// Writes up to `limit` bytes, as a socket with that much room would take them.
fn write(outbox: &mut Outbox, out: &mut Vec<u8>, limit: usize) -> Credited {
    let single = outbox.single().map(<[u8]>::to_vec);
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let count = outbox.slices(&mut slices);
    let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
    assert!(single.is_none_or(|single| count == 1 && single == all));
    let len = all.len().min(limit);
    out.extend_from_slice(&all[..len]);
    outbox.wrote(len)
}

fn drain(outbox: &mut Outbox) -> Vec<u8> {
    let mut out = Vec::new();
    while !outbox.is_empty() {
        write(outbox, &mut out, usize::MAX);
    }
    out
}

fn frames(sequences: std::ops::RangeInclusive<u64>) -> Vec<Vec<u8>> {
    sequences
        .map(|sequence| {
            let mut frame = Vec::new();
            let publication = Publication {
                subscription_id: SubscriptionId::of_name("s"),
                publication_id: PublicationId::made(Timestamp(1), Sequence(sequence), 0),
                sequence: Sequence(sequence),
                time: Timestamp(1),
                publisher: None,
                dead_letter: None,
                data: b"data",
            };
            publication.encode_into(&mut frame);
            frame
        })
        .collect()
}

#[test]
fn answers_go_in_front_of_publications() {
    let mut outbox = Outbox::default();
    outbox.push(subscriber("s"), Bytes::from_static(b"P1"), Sequence(1));
    answer(&mut outbox, b"A1", 1);
    outbox.ping();
    assert_eq!(drain(&mut outbox), b"A1\x89\x00P1");
}

#[test]
fn a_begun_publication_is_finished_before_answers() {
    let mut outbox = Outbox::default();
    let subscriber = subscriber("s");
    outbox.push(subscriber.clone(), Bytes::from_static(b"P1"), Sequence(1));
    outbox.push(subscriber.clone(), Bytes::from_static(b"P2"), Sequence(2));
    let mut out = Vec::new();
    write(&mut outbox, &mut out, 1);
    answer(&mut outbox, b"A1", 1);
    assert_eq!(subscriber.handed(), Sequence::ZERO);
    write(&mut outbox, &mut out, 1);
    assert_eq!(subscriber.handed(), Sequence(1));
    write(&mut outbox, &mut out, usize::MAX);
    assert_eq!(out, b"P1A1P2");
    assert_eq!(subscriber.handed(), Sequence(2));
}

#[test]
fn credit_returns_when_the_last_byte_of_an_answer_is_written() {
    let mut outbox = Outbox::default();
    let long = vec![b'x'; 5000];
    answer(&mut outbox, &long, 1);
    answer(&mut outbox, b"A2", 1);
    let mut out = Vec::new();
    assert_eq!(write(&mut outbox, &mut out, 4999).commands, 0);
    assert_eq!(write(&mut outbox, &mut out, 1).commands, 1);
    assert_eq!(
        write(&mut outbox, &mut out, 2),
        Credited {
            commands: 1,
            bytes: 10
        }
    );
}

#[test]
fn every_ping_is_answered_in_order() {
    let mut outbox = Outbox::default();
    outbox.pong(Bytes::from_static(b"1"));
    outbox.pong(Bytes::from_static(b"2"));
    assert!(!outbox.is_empty());
    assert_eq!(drain(&mut outbox), b"\x8a\x011\x8a\x012");
}

#[test]
fn of_many_pings_that_wait_only_the_newest_is_answered_besides() {
    let mut outbox = Outbox::default();
    for number in 0..10_000_u16 {
        outbox.pong(Bytes::copy_from_slice(&number.to_be_bytes()));
    }
    outbox.pong(Bytes::from_static(b"newest"));
    let written = drain(&mut outbox);
    assert!(written.len() <= MAX_ANSWERS_BEFORE_PONG + 20);
    assert!(written.ends_with(b"\x8a\x06newest"));
    assert!(outbox.is_empty());
    outbox.pong(Bytes::from_static(b"at once"));
    assert_eq!(drain(&mut outbox), b"\x8a\x07at once");
}

#[test]
fn publications_are_bounded_but_for_a_single_one() {
    let mut outbox = Outbox::default();
    assert!(outbox.has_room(10 * LIMIT, LIMIT));
    let large = Bytes::from(vec![0; 10 * LIMIT]);
    outbox.push(subscriber("s"), large, Sequence(1));
    assert!(!outbox.has_room(1, LIMIT));
    drain(&mut outbox);
    outbox.push(subscriber("s"), Bytes::from(vec![0; 500]), Sequence(2));
    assert!(outbox.has_room(300, LIMIT));
    assert!(!outbox.has_room(500, LIMIT));
}

#[test]
fn withdrawing_leaves_what_is_begun_and_what_is_of_others() {
    let mut outbox = Outbox::default();
    let (s, t) = (subscriber("s"), subscriber("t"));
    for (bytes, last) in [(&b"S1"[..], 1), (b"S2", 2)] {
        outbox.push(s.clone(), Bytes::from_static(bytes), Sequence(last));
    }
    outbox.push(t.clone(), Bytes::from_static(b"T1"), Sequence(1));
    outbox.push_deleted(s.subscription, Bytes::from_static(b"DS"));
    let mut out = Vec::new();
    write(&mut outbox, &mut out, 1);
    let withdrawn = outbox.withdraw(s.subscription);
    let (begun, last) = withdrawn.begun.unwrap();
    assert!(Rc::ptr_eq(&begun, &s));
    assert_eq!(last, Sequence(1));
    assert_eq!(withdrawn.deleted.unwrap(), &b"DS"[..]);
    answer(&mut outbox, b"A", 1);
    out.extend(drain(&mut outbox));
    assert_eq!(out, b"S1AT1");
    assert_eq!(outbox.publication_bytes(), 0);
}

#[test]
fn nothing_follows_the_close_frame() {
    let mut outbox = Outbox::default();
    let s = subscriber("s");
    outbox.push(s.clone(), Bytes::from_static(b"P1"), Sequence(1));
    outbox.push_close(Some(1001), "bye");
    outbox.push_close(Some(1002), "again");
    assert!(!outbox.has_room(1, LIMIT));
    outbox.push(s.clone(), Bytes::from_static(b"P2"), Sequence(2));
    answer(&mut outbox, b"A", 1);
    let mut out = Vec::new();
    write(&mut outbox, &mut out, 4);
    assert!(outbox.answers().is_none());
    out.extend(drain(&mut outbox));
    assert_eq!(out, b"AP1\x88\x05\x03\xe9bye");
    assert!(outbox.is_finished() && outbox.answers().is_none());
}

#[test]
fn dropping_publications_ends_a_begun_chunk_with_its_frame() {
    dropping_ends_with_a_frame(&frames(1..=3));
}

#[test]
fn dropping_publications_in_json_ends_a_begun_chunk_with_its_frame() {
    let frames = frames(1..=3);
    let in_json: Vec<_> = frames
        .iter()
        .map(|frame| convert_frames(frame).to_vec())
        .collect();
    dropping_ends_with_a_frame(&in_json);
}

#[test]
fn a_begun_run_of_leases_is_kept_whole_in_both_forms() {
    let leased = frames(1..=2).concat();
    for bytes in [convert_frames(&leased), leased.into()] {
        let mut outbox = Outbox::default();
        let queue = Subscriber::new(
            SubscriptionId::of_name("q"),
            LogNumber(1),
            LogSource::Disk,
            Sequence::ZERO,
        );
        let queue = Rc::new(queue.of_queue(1));
        let end = queue.lease(1_000);
        outbox.push(queue.clone(), bytes.clone(), end);
        let mut out = Vec::new();
        write(&mut outbox, &mut out, bytes.len() - 1);
        outbox.hand_whole_frames();
        assert_eq!(queue.handed(), Sequence::ZERO);
        outbox.drop_publications();
        out.extend(drain(&mut outbox));
        assert_eq!(out, bytes);
        assert_eq!(queue.handed(), end);
    }
}

fn dropping_ends_with_a_frame(frames: &[Vec<u8>]) {
    let chunk = frames.concat();
    for begun in 1..chunk.len() {
        let mut outbox = Outbox::default();
        let s = subscriber("s");
        outbox.push(s.clone(), Bytes::from(chunk.clone()), Sequence(3));
        outbox.push(s.clone(), Bytes::from_static(b"P4"), Sequence(4));
        let mut out = Vec::new();
        write(&mut outbox, &mut out, begun);
        outbox.hand_whole_frames();
        let whole = begun / frames[0].len();
        assert_eq!(s.handed(), Sequence(whole as u64));
        outbox.drop_publications();
        outbox.push_close(None, "");
        outbox.hand_begun();
        let through = begun.div_ceil(frames[0].len());
        assert_eq!(s.handed(), Sequence(through as u64));
        out.extend(drain(&mut outbox));
        assert_eq!(out, [frames[..through].concat(), vec![0x88, 0x00]].concat());
        assert_eq!(s.handed(), Sequence(through as u64));
    }
}

#[test]
fn an_empty_outbox_holds_no_memory() {
    let mut outbox = Outbox::default();
    let s = subscriber("s");
    for sequence in 1..=100 {
        outbox.push(s.clone(), Bytes::from_static(b"P"), Sequence(sequence));
        answer(&mut outbox, b"A", 1);
    }
    drain(&mut outbox);
    assert_eq!(outbox.answers.capacity(), 0);
    assert_eq!(outbox.returns.capacity(), 0);
    assert_eq!(outbox.publications.capacity(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Answer,
    Publication(usize),
    Write(usize),
    Withdraw(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Answer),
        (0..2_usize).prop_map(Step::Publication),
        (1..9_usize).prop_map(Step::Write),
        (0..2_usize).prop_map(Step::Withdraw),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn items_come_whole_and_each_queue_in_its_order(steps in steps()) {
        let mut outbox = Outbox::default();
        let subscribers = [subscriber("s"), subscriber("t")];
        let mut out = Vec::new();
        let (mut answers, mut publications) = (0_u8, 0_u8);
        let mut credited = 0;
        for step in steps {
            match step {
                Step::Answer => {
                    answer(&mut outbox, &[b'(', answers, b')'], 1);
                    answers += 1;
                }
                Step::Publication(which) => {
                    let bytes = vec![b'[', which as u8, publications, b']'];
                    publications += 1;
                    let last = Sequence(u64::from(publications));
                    outbox.push(subscribers[which].clone(), bytes.into(), last);
                }
                Step::Write(len) => credited += write(&mut outbox, &mut out, len).commands,
                Step::Withdraw(which) => {
                    outbox.withdraw(subscribers[which].subscription);
                }
            }
        }
        while !outbox.is_empty() {
            credited += write(&mut outbox, &mut out, 5).commands;
        }
        prop_assert_eq!(credited, u32::from(answers));
        prop_assert_eq!(outbox.publication_bytes(), 0);
        prop_assert_eq!(outbox.written(), out.len() as u64);
        let (mut next_answer, mut next_publication) = (0, 0);
        let mut rest = &out[..];
        while let Some((&first, _)) = rest.split_first() {
            if first == b'(' {
                prop_assert_eq!(&rest[..3], &[b'(', next_answer, b')']);
                next_answer += 1;
                rest = &rest[3..];
            } else {
                prop_assert_eq!((rest[0], rest[3]), (b'[', b']'));
                prop_assert!(rest[2] >= next_publication);
                next_publication = rest[2] + 1;
                rest = &rest[4..];
            }
        }
        prop_assert_eq!(next_answer, answers);
    }
}
