//! The adapter against bytes: what it writes, what it reads, and where it must not be fooled.
use super::{
    cbor::{Cbor, MAX_DEPTH, put_head},
    *,
};
use crate::engine::Engine;
use crate::websocket;

fn head(major: u8, n: u64) -> Vec<u8> {
    let mut v = vec![];
    put_head(&mut v, major, n);
    v
}

fn uint(n: u64) -> Vec<u8> {
    head(0, n)
}

fn text(t: &str) -> Vec<u8> {
    [head(3, t.len() as u64), t.as_bytes().to_vec()].concat()
}

fn bytes(b: &[u8]) -> Vec<u8> {
    [head(2, b.len() as u64), b.to_vec()].concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut v = head(5, pairs.len() as u64);
    for (k, x) in pairs {
        v.extend(text(k));
        v.extend(x);
    }
    v
}

fn map_indefinite(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut v = vec![0xbf];
    for (k, x) in pairs {
        v.extend(text(k));
        v.extend(x);
    }
    v.push(0xff);
    v
}

fn reply(id: u64, m: Vec<u8>) -> Vec<u8> {
    [vec![0x82], uint(id), m].concat()
}

fn hex(s: &str) -> Vec<u8> {
    let s: String = s.split_whitespace().collect();
    (0..s.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap())
        .collect()
}

fn fields(sequence: u64, data: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("subscription_id", bytes(&[7; 16])),
        ("publication_id", bytes(&[8; 16])),
        ("sequence", uint(sequence)),
        ("time", uint(1_790_000_000_000)),
        ("data", bytes(data)),
        ("publisher", text("someone")),
    ]
}

fn publication(sequence: u64, data: &[u8]) -> Vec<u8> {
    map(&[("Publication", map(&fields(sequence, data)[..5]))])
}

fn welcome() -> Vec<u8> {
    let limits = map(&[
        ("max_message_size", uint(262144)),
        ("heartbeat_interval", uint(25000)),
    ]);
    let w = [
        ("session_id", bytes(&[1; 16])),
        ("durable", vec![0xf4]),
        ("resumed", vec![0xf4]),
        ("subscriptions", vec![0x80]),
        ("server", text("infotainer/0.0")),
        ("limits", limits),
    ];
    map(&[("Welcome", map(&w))])
}

fn subscribed(cursor: u64) -> Vec<u8> {
    let f = [
        ("subscription_id", bytes(&[7; 16])),
        ("kind", text("Broadcast")),
        ("epoch", bytes(&[9; 16])),
        ("first_sequence", uint(1)),
        ("last_sequence", uint(cursor)),
        ("cursor", uint(cursor)),
        ("recovered", vec![0xf5]),
    ];
    reply(SUBSCRIBE_ID, map(&[("Subscribed", map(&f))]))
}

fn submitted(slot: u64) -> Vec<u8> {
    let f = [
        ("subscription_id", bytes(&[7; 16])),
        ("publication_id", bytes(&[8; 16])),
        ("sequence", uint(70_000)),
        ("duplicate", vec![0xf4]),
        ("durability", text("Synced")),
    ];
    reply(slot, map(&[("Submitted", map(&f))]))
}

fn error(code: &str) -> Vec<u8> {
    map(&[(
        "Error",
        map(&[
            ("code", text(code)),
            ("message", text("it did not work")),
            ("temporary", vec![0xf5]),
        ]),
    )])
}

fn engine() -> Engine {
    let mut e = Engine::without_sockets(Box::new(Infotainer { replay: false }));
    e.measures_latency = true; // payloads of 16 bytes and more carry a time stamp: a wrong slice would show
    e
}

fn subscriber() -> Engine {
    let mut e = engine();
    e.fake(Role::Subscriber, false, 0);
    e
}

fn publisher(slots: u32) -> Engine {
    let mut e = engine();
    e.fake(Role::Publisher, true, slots);
    e
}

fn frame(app: &[u8]) -> Vec<u8> {
    let mut v = vec![];
    websocket::server_frame(&mut v, 2, &[app]);
    v
}

fn feed(e: &mut Engine, app: &[u8]) {
    e.feed(0, &frame(app));
}

/// A payload whose first 16 bytes are the time stamp 1 ns.
fn payload(n: usize) -> Vec<u8> {
    let mut p = vec![b'x'; n];
    if n >= 16 {
        p[..16].copy_from_slice(b"0000000000000001");
    }
    p
}

/// (delivered, stamps read, errors, acknowledged, ready): all that must not depend on how the bytes arrive
fn state(e: &Engine) -> (u64, u64, u64, u64, bool) {
    (
        e.delivered,
        e.latency.count,
        e.errors,
        e.acked,
        e.connections[0].ready,
    )
}

#[test]
fn commands_are_the_bytes_of_the_protocol() {
    let publish = |acked: bool, topic: u32, slot: u32, p: &[u8]| {
        let mut context = Context {
            role: Role::Publisher,
            topic,
            id: 0,
            acked,
            stage: 0,
            sequence: 0,
            slots: 0,
        };
        let mut out = vec![];
        Infotainer { replay: false }.publish(&mut context, slot, p, &mut out);
        out
    };
    // {"SubmitPublication": {"subscription_id": "t0", "submission": h'616263'}}
    let bare = hex(
        "a1 71 5375626d69745075626c69636174696f6e a2 6f 737562736372697074696f6e5f6964 62 7430 6a 7375626d697373696f6e 43 616263",
    );
    assert_eq!(publish(false, 0, 9, b"abc"), bare);
    for (slot, id) in [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (300, "19012c"),
        (70_000, "1a00011170"),
    ] {
        assert_eq!(
            publish(true, 0, slot, b"abc"),
            [hex("82"), hex(id), bare.clone()].concat()
        );
    }
    for topic in [0, 7, 10, 99, 12_345, u32::MAX] {
        let by_name = map(&[(
            "SubmitPublication",
            map(&[
                ("subscription_id", text(&format!("t{topic}"))),
                ("submission", bytes(b"abc")),
            ]),
        )]);
        assert_eq!(publish(false, topic, 0, b"abc"), by_name);
    }
    for n in [0, 23, 24, 255, 256, 65_535, 65_536] {
        let m = publish(false, 0, 0, &vec![b'y'; n]);
        let by_hand = map(&[(
            "SubmitPublication",
            map(&[
                ("subscription_id", text("t0")),
                ("submission", bytes(&vec![b'y'; n])),
            ]),
        )]);
        assert_eq!(m, by_hand);
        let mut c = Cbor { bytes: &m, at: 0 };
        assert!(c.skip(MAX_DEPTH).is_some() && c.at == m.len());
    }
}

#[test]
fn hello_subscribes_and_replay_begins_at_the_first() {
    let hello = |replay, role| {
        let mut e = Engine::without_sockets(Box::new(Infotainer { replay }));
        e.fake(role, false, 0);
        e.hello(0);
        let m = e.sent(0).to_vec();
        if m.is_empty() {
            return m;
        }
        assert_eq!((m[0], m[1] & 128), (0x82, 128), "one masked binary frame");
        let (n, at) = if m[1] & 127 == 126 {
            (m[3] as usize, 4)
        } else {
            ((m[1] & 127) as usize, 2)
        };
        let mut app = m[at + 4..].to_vec();
        assert_eq!(app.len(), n);
        websocket::mask(&mut app, m[at..at + 4].try_into().unwrap());
        app
    };
    assert_eq!(
        hello(false, Role::Subscriber),
        reply(
            1,
            map(&[("Subscribe", map(&[("subscription_id", text("t0"))]))])
        )
    );
    assert_eq!(
        hello(true, Role::Subscriber),
        reply(
            1,
            map(&[(
                "Subscribe",
                map(&[("subscription_id", text("t0")), ("from", text("First"))])
            )])
        )
    );
    assert_eq!(hello(true, Role::Publisher), b"");
}

#[test]
fn publication_in_every_order_of_its_fields() {
    fn permute(
        v: &mut Vec<(&'static str, Vec<u8>)>,
        k: usize,
        f: &mut impl FnMut(&[(&'static str, Vec<u8>)]),
    ) {
        if k == v.len() {
            return f(v);
        }
        for i in k..v.len() {
            v.swap(k, i);
            permute(v, k + 1, f);
            v.swap(k, i);
        }
    }
    let mut n = 0;
    permute(&mut fields(1, &payload(40)), 0, &mut |p| {
        for m in [
            map(&[("Publication", map(p))]),
            map_indefinite(&[("Publication", map_indefinite(p))]),
        ] {
            let mut e = subscriber();
            feed(&mut e, &m);
            assert_eq!((e.delivered, e.latency.count, e.errors), (1, 1, 0), "{p:?}");
            n += 1;
        }
    });
    assert_eq!(n, 1440);
}

#[test]
fn unknown_fields_of_every_kind_are_passed_over() {
    let odd: Vec<Vec<u8>> = vec![
        uint(u64::MAX),
        hex("3903e7"), // -1000
        bytes(b"data"),
        text("data"),
        hex("83 01 82 02 03 9f 04 05 ff"), // arrays
        map(&[("data", bytes(b"not this one")), ("sequence", uint(99))]),
        map_indefinite(&[("data", text("nor this"))]),
        hex("5f 42 0102 41 03 ff"), // byte string in chunks
        hex("7f 61 61 60 ff"),      // text in chunks
        hex("c1 1a 5f5e1000"),      // tag
        hex("d825 50 00112233445566778899aabbccddeeff"), // tag 37, a UUID
        hex("f4"),
        hex("f6"),
        hex("f7"),
        hex("f8 20"),
        hex("f9 3c00"),
        hex("fa 3f800000"),
        hex("fb 3ff0000000000000"),
    ];
    for at in 0..6 {
        let mut p = fields(1, &payload(16))[..5].to_vec();
        for (i, o) in odd.iter().enumerate() {
            p.insert(
                at.min(p.len()),
                (
                    [
                        "x",
                        "datum",
                        "Data",
                        "a_field_of_some_later_version_with_a_long_name",
                    ][i % 4],
                    o.clone(),
                ),
            );
        }
        let mut e = subscriber();
        feed(&mut e, &map(&[("Publication", map(&p))]));
        assert_eq!(state(&e), (1, 1, 0, 0, false), "{} {}", at, e.first_error);
    }
    // keys that are no text
    let m = [
        hex("a1"),
        text("Publication"),
        hex("a4 01 02"),
        hex("82 01 02 63 616263"),
        text("data"),
        bytes(&payload(16)),
        text("sequence"),
        uint(1),
    ]
    .concat();
    let mut e = subscriber();
    feed(&mut e, &m);
    assert_eq!(state(&e), (1, 1, 0, 0, false), "{}", e.first_error);
    // data in chunks, data tagged (RFC 8746)
    for d in [
        [hex("5f"), bytes(&payload(20)), bytes(b"rest"), hex("ff")].concat(),
        [hex("d840"), bytes(&payload(20))].concat(),
    ] {
        let mut e = subscriber();
        feed(
            &mut e,
            &map(&[("Publication", map(&[("data", d), ("sequence", uint(1))]))]),
        );
        assert_eq!(state(&e), (1, 1, 0, 0, false), "{}", e.first_error);
    }
}

/// Everything a subscriber hears, and everything a publisher hears, with pings between and an unfinished end.
fn conversations() -> Vec<(Vec<u8>, bool)> {
    let mut sub = frame(&welcome());
    sub.extend(frame(&subscribed(41)));
    websocket::server_frame(&mut sub, 9, &[b"are you there"]);
    for (i, n) in [0, 1, 15, 16, 17, 24, 60, 128, 255, 300]
        .into_iter()
        .enumerate()
    {
        sub.extend(frame(&publication(42 + i as u64, &payload(n))));
    }
    sub.extend(frame(&error("log-unavailable")));
    // one message in three fragments, with a ping between them
    let m = publication(52, &payload(64));
    for (i, part) in [&m[..9], &m[9..50], &m[50..]].into_iter().enumerate() {
        let mut f = frame(part);
        f[0] = if i == 0 { 2 } else { 0 } | if i == 2 { 0x80 } else { 0 };
        sub.extend(f);
        websocket::server_frame(&mut sub, 9, &[]);
    }
    sub.extend(&frame(&publication(53, &payload(32)))[..40]);
    let mut publ = frame(&welcome());
    for i in 0..5 {
        publ.extend(frame(&submitted(i)));
    }
    publ.extend(frame(&reply(5, error("log-full"))));
    publ.extend(frame(&submitted(6)));
    vec![(sub, true), (publ, false)]
}

#[test]
fn frames_split_at_every_byte() {
    for (stream, sub) in conversations() {
        let make = || if sub { subscriber() } else { publisher(8) };
        let mut whole = make();
        whole.feed(0, &stream);
        let want = state(&whole);
        assert_eq!(
            want,
            if sub {
                (11, 8, 1, 0, true)
            } else {
                (0, 0, 1, 6, true)
            },
            "{}",
            whole.first_error
        );
        assert_eq!(
            whole.sent(0).len(),
            if sub { 6 + 13 + 3 * 6 } else { 0 },
            "every ping has its pong"
        );
        for cut in 0..=stream.len() {
            let mut e = make();
            e.feed(0, &stream[..cut]);
            e.feed(0, &stream[cut..]);
            assert_eq!(state(&e), want, "cut at {cut}: {}", e.first_error);
            assert_eq!(e.sent(0), whole.sent(0), "pongs, cut at {cut}");
        }
        for step in 1..40 {
            let mut e = make();
            for piece in stream.chunks(step) {
                e.feed(0, piece);
            }
            assert_eq!(state(&e), want, "pieces of {step}: {}", e.first_error);
        }
        for first in (0..stream.len()).step_by(3) {
            for second in (first..stream.len()).step_by(5) {
                let mut e = make();
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    e.feed(0, piece);
                }
                assert_eq!(
                    state(&e),
                    want,
                    "cut at {first} and {second}: {}",
                    e.first_error
                );
            }
        }
    }
}

#[test]
fn a_frame_with_a_64_bit_length_split_inside_its_header() {
    let stream = [
        frame(&subscribed(0)),
        frame(&publication(1, &payload(70_000))),
        frame(&publication(2, &payload(16))),
    ]
    .concat();
    let start = frame(&subscribed(0)).len();
    for cut in (start..start + 200).chain((start..stream.len()).step_by(997)) {
        let mut e = subscriber();
        e.feed(0, &stream[..cut]);
        e.feed(0, &stream[cut..]);
        assert_eq!(
            state(&e),
            (2, 2, 0, 0, true),
            "cut at {cut}: {}",
            e.first_error
        );
    }
}

#[test]
fn a_message_cut_short_or_with_bytes_behind_it_is_one_error() {
    for m in [
        welcome(),
        subscribed(3),
        publication(4, &payload(40)),
        submitted(1),
        reply(2, error("x")),
        error("x"),
        map_indefinite(&[("Publication", map_indefinite(&fields(1, b"d")))]),
    ] {
        for n in 1..m.len() {
            let mut e = publisher(4);
            feed(&mut e, &m[..n]);
            assert_eq!(state(&e), (0, 0, 1, 0, false), "{n} of {} bytes", m.len());
        }
        let mut e = publisher(4);
        feed(&mut e, &[m.clone(), vec![0]].concat());
        assert_eq!(state(&e), (0, 0, 1, 0, false));
    }
    // well-formed, but not a message: two variants in one map, no data, three items in the array, nesting without end
    let two = map(&[("Pong", map(&[])), ("Publication", map(&fields(1, b"d")))]);
    let no_data = map(&[("Publication", map(&[("sequence", uint(1))]))]);
    let deep = [
        hex("a1"),
        text("Publication"),
        hex("a1"),
        text("x"),
        vec![0x81; 100_000],
        uint(0),
    ]
    .concat();
    for m in [
        two,
        no_data,
        [hex("83"), uint(1), error("x"), uint(1)].concat(),
        deep,
        hex("a0"),
        hex("ff"),
        hex("00"),
    ] {
        let mut e = subscriber();
        feed(&mut e, &m);
        assert_eq!(
            state(&e),
            (0, 0, 1, 0, false),
            "{:?}",
            &m[..m.len().min(20)]
        );
    }
}

#[test]
fn noise_never_panics_nor_counts() {
    let mut r = 1u64;
    let mut next = || {
        r = r
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (r >> 33) as usize
    };
    let seeds = [
        publication(1, &payload(40)),
        submitted(3),
        subscribed(2),
        map_indefinite(&[("Publication", map_indefinite(&fields(1, b"d")))]),
    ];
    let mut both = 0;
    for i in 0..200_000 {
        let mut m = seeds[i % seeds.len()].clone();
        for _ in 0..1 + next() % 4 {
            let at = next() % m.len();
            m[at] = next() as u8;
        }
        if let Some((seq, usual)) = read_usual(&m) {
            // the short way never says anything that the long way does not
            assert!(
                matches!(read(&m), Some((None, Said::Publication { sequence, data })) if sequence == seq && *data == *usual),
                "{m:02x?}"
            );
            both += 1;
        }
        let noise: Vec<u8> = (0..1 + next() % 40).map(|_| next() as u8).collect();
        assert!(!matches!(read(&noise), Some((_, Said::Publication { .. }))));
    }
    assert!(both > 10_000, "{both}");
}

#[test]
fn who_is_ready_when() {
    let mut e = subscriber();
    feed(&mut e, &welcome());
    assert!(!e.connections[0].ready);
    feed(&mut e, &subscribed(0));
    assert!(e.connections[0].ready);
    let mut e = publisher(1);
    feed(&mut e, &welcome());
    assert!(e.connections[0].ready);
    let mut e = subscriber();
    feed(&mut e, &reply(1, error("limit-reached")));
    assert_eq!(
        (e.connections[0].ready, e.errors, e.first_error.as_str()),
        (false, 1, "limit-reached: it did not work")
    );
}

#[test]
fn a_refused_publish_frees_its_slot_and_is_no_acknowledgement() {
    let mut e = publisher(4);
    feed(&mut e, &submitted(2));
    feed(&mut e, &reply(1, error("rate-limited")));
    feed(&mut e, &error("malformed")); // bare: concerns no slot
    assert_eq!(
        (
            e.acked,
            e.refused,
            e.errors,
            e.ack_latency.count,
            e.first_error.as_str()
        ),
        (1, 1, 2, 1, "rate-limited: it did not work")
    );
    assert_eq!(e.connections[0].free, [2, 1]);
    feed(&mut e, &submitted(77)); // a slot we do not have
    assert_eq!(e.connections[0].free, [2, 1]);
}

#[test]
fn holes_and_repetitions_in_the_sequence_are_errors() {
    for (cursor, sequences, errors) in [
        (Some(9), vec![10, 11, 12], 0),
        (Some(9), vec![11, 12], 1), // the first one is missing
        (Some(9), vec![9, 10], 1),  // one from before the cursor
        (None, vec![5, 6, 7], 0),   // no cursor told: the first one says where we are
        (None, vec![5, 7, 8], 1),
        (None, vec![5, 6, 6, 7], 1),
    ] {
        let mut e = subscriber();
        if let Some(c) = cursor {
            feed(&mut e, &subscribed(c));
        }
        for s in &sequences {
            feed(&mut e, &publication(*s, &payload(16)));
        }
        assert_eq!(
            (e.delivered, e.errors),
            (sequences.len() as u64, errors),
            "{cursor:?} {sequences:?} {}",
            e.first_error
        );
    }
    let mut e = subscriber();
    feed(&mut e, &subscribed(0));
    feed(
        &mut e,
        &map(&[(
            "Gap",
            map(&[
                ("subscription_id", bytes(&[7; 16])),
                ("from", uint(1)),
                ("to", uint(20)),
            ]),
        )]),
    );
    feed(&mut e, &publication(21, b"d"));
    assert_eq!(
        (e.delivered, e.errors, e.first_error.as_str()),
        (1, 1, "Gap: retention removed 1 to 20")
    );
}

#[test]
fn a_close_frame_ends_the_connection_and_says_why() {
    let mut e = subscriber();
    let mut f = vec![];
    websocket::server_frame(&mut f, 8, &[&4502u16.to_be_bytes(), b"taken over"]);
    for b in f.chunks(1) {
        e.feed(0, b);
    }
    assert_eq!(
        (e.dead, e.first_error.as_str()),
        (1, "close frame 4502 on a Subscriber connection: taken over")
    );
}

#[test]
fn what_a_later_version_may_push_is_passed_over() {
    let mut e = subscriber();
    for m in [
        map(&[("Pong", map(&[("time", uint(1))]))]),
        text("Pong"),
        map(&[("Novelty", uint(1))]),
        reply(9, text("Done")),
        reply(9, map(&[("Unsubscribed", map(&[]))])),
        hex("9f 07 64 446f6e65 ff"),
    ] {
        feed(&mut e, &m);
    }
    assert_eq!(state(&e), (0, 0, 0, 0, false), "{}", e.first_error);
    feed(
        &mut e,
        &map(&[("Deleted", map(&[("subscription_id", bytes(&[7; 16]))]))]),
    );
    assert_eq!(e.errors, 1);
}
