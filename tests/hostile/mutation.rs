//! Valid messages made wrong: the test vectors, changed at random.

use std::{fs, path::Path};

use fastrand::Rng;

/// The seed: that of the environment, or always the same.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("INFOTAINER_TEST_SEED").ok();
    let seed = given.map_or(20_260, |seed| seed.parse().unwrap());
    println!("INFOTAINER_TEST_SEED={seed}");
    seed
}

/// Makes broken messages out of good ones.
pub(crate) struct Mutator {
    messages: Vec<Vec<u8>>,
    rng: Rng,
}

/// First bytes of items that declare more than there is, or say what cannot be.
const HEADS: [&[u8]; 24] = [
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xbb\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x9a\x00\xff\xff\xff",
    b"\xba\x00\x04\x00\x00",
    b"\x5a\xff\xff\xff\xff",
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x1b\x00\x20\x00\x00\x00\x00\x00\x00",
    b"\xdb\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd9\xd9\xf7",
    b"\xf9\x7e\x00",
    b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xf8\x18",
    b"\x9f",
    b"\xbf",
    b"\x5f",
    b"\x7f",
    b"\xff",
    b"\xf6",
    b"\xf7",
    b"\x1c",
];

impl Mutator {
    pub(crate) fn of_what_clients_send(seed: u64) -> Self {
        Self {
            messages: messages(CLIENT),
            rng: Rng::with_seed(seed),
        }
    }

    pub(crate) fn of_what_servers_send(seed: u64) -> Self {
        Self {
            messages: messages(SERVER),
            rng: Rng::with_seed(seed),
        }
    }

    /// A message with one to four changes, most with one.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let mut bytes = rng.choice(&self.messages).unwrap().clone();
        for _ in 0..*rng.choice(&[1, 1, 1, 2, 4]).unwrap() {
            let at = rng.usize(0..=bytes.len());
            match rng.u32(0..14) {
                9.. if at < bytes.len() => bytes[at] ^= 1 << rng.u32(0..8),
                0 | 1 if at < bytes.len() => bytes[at] = rng.u8(..),
                2 => bytes.truncate(at),
                3 => {
                    let head = *rng.choice(&HEADS).unwrap();
                    bytes.splice(at..at, head.iter().copied());
                }
                4 => {
                    let head = *rng.choice(&HEADS).unwrap();
                    let end = bytes.len().min(at + head.len());
                    bytes.splice(at..end, head.iter().copied());
                }
                5 => {
                    let end = rng.usize(at..=bytes.len());
                    bytes.drain(at..end);
                }
                6 => {
                    // The same once more, somewhere else: a key that stands twice among them.
                    let end = rng.usize(at..=bytes.len());
                    let again = bytes[at..end].to_vec();
                    let there = rng.usize(0..=bytes.len());
                    bytes.splice(there..there, again);
                }
                7 => {
                    let other = rng.choice(&self.messages).unwrap();
                    let from = rng.usize(0..=other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ => {
                    let opening = *rng.choice(&[0x81, 0x9f, 0xc1, 0xa1]).unwrap();
                    let levels = rng.usize(1..200);
                    bytes.splice(at..at, std::iter::repeat_n(opening, levels));
                }
            }
        }
        bytes
    }
}

/// What clients send.
pub(crate) const CLIENT: &str = "client-to-server";

/// What servers send.
const SERVER: &str = "server-to-client";

/// The messages of `docs/vectors` that go this way.
pub(crate) fn messages(direction: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/vectors");
    let mut paths: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    paths.sort();
    let mut messages = Vec::new();
    for path in paths {
        let text = fs::read_to_string(path).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        if file["direction"] == direction {
            let vectors = file["vectors"].as_array().unwrap();
            let hex = vectors.iter().map(|vector| vector["hex"].as_str().unwrap());
            messages.extend(hex.map(from_hex));
        }
    }
    assert!(messages.len() > 50);
    messages
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}
