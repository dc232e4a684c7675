use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1000;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

fn read_all(
    reader: &mut FrameReader,
    bytes: &[u8],
    received: &mut Vec<Received>,
) -> Result<(), FrameError> {
    let mut input = BytesMut::from(bytes);
    while let Some(message) = reader.next(&mut input)? {
        received.push(message);
    }
    assert!(input.is_empty());
    Ok(())
}

fn read(bytes: &[u8]) -> Result<Vec<Received>, FrameError> {
    let mut received = Vec::new();
    read_all(&mut FrameReader::new(LIMIT), bytes, &mut received).map(|()| received)
}

fn code(bytes: &[u8]) -> u16 {
    read(bytes).unwrap_err().close_code()
}

#[test]
fn a_whole_message_is_a_slice_of_its_read() {
    let mut input = BytesMut::from(&frame(0x82, b"0123456789")[..]);
    let payload_at = input.as_ptr() as usize + 6;
    let message = FrameReader::new(LIMIT).next(&mut input).unwrap().unwrap();
    let Received::Binary(bytes) = message else {
        panic!("a binary message was expected, not {message:?}");
    };
    assert_eq!(bytes, &b"0123456789"[..]);
    assert_eq!(bytes.as_ptr() as usize, payload_at);
}

#[test]
fn a_reader_between_two_messages_holds_no_memory() {
    let mut reader = FrameReader::new(LIMIT);
    let mut received = Vec::new();
    for byte in [frame(0x02, b"ab"), frame(0x80, b"cd")].concat() {
        read_all(&mut reader, &[byte], &mut received).unwrap();
    }
    assert_eq!(received, [Received::Binary(Bytes::from_static(b"abcd"))]);
    assert!(reader.partial.is_none());
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let bytes = [
        frame(0x02, b"ab"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x8a, b""),
        frame(0x80, b"cd"),
    ];
    assert_eq!(
        read(&bytes.concat()).unwrap(),
        [
            Received::Ping(Bytes::from_static(b"ping")),
            Received::Pong,
            Received::Binary(Bytes::from_static(b"abcd")),
        ]
    );
}

#[test]
fn a_declared_length_over_the_limit_fails_before_its_bytes_come() {
    let whole = frame(0x82, &[0; LIMIT + 1]);
    assert_eq!(read(&whole[..8]), Err(FrameError::TooLarge));
    assert_eq!(read(&whole[..3]), Ok(vec![]));
    assert!(read(&frame(0x82, &[0; LIMIT])).is_ok());
}

#[test]
fn fragments_over_the_limit_together_fail_when_the_last_is_declared() {
    let bytes = [frame(0x02, &[0; LIMIT]), frame(0x80, b"x")].concat();
    assert_eq!(read(&bytes[..bytes.len() - 1]), Err(FrameError::TooLarge));
    let bytes = [frame(0x02, &[0; LIMIT]), frame(0x80, b"")].concat();
    assert!(read(&bytes).is_ok());
}

#[test]
fn breaches_of_framing_fail_with_1002() {
    let unmasked = [0x82, 0x00];
    assert_eq!(code(&unmasked), 1002);
    for reserved_bit in [0x40, 0x20, 0x10] {
        assert_eq!(code(&frame(0x82 | reserved_bit, b"")), 1002);
    }
    for reserved_opcode in [0x83, 0x87, 0x8b, 0x8f] {
        assert_eq!(code(&frame(reserved_opcode, b"")), 1002);
    }
    assert_eq!(code(&frame(0x09, b"")), 1002, "fragmented ping");
    assert_eq!(code(&frame(0x89, &[0; 126])), 1002, "long ping");
    assert_eq!(code(&frame(0x80, b"")), 1002, "continuation of nothing");
    let nested = [frame(0x02, b""), frame(0x82, b"")].concat();
    assert_eq!(code(&nested), 1002);
    let mut endless = vec![0x82, 0xff];
    endless.extend_from_slice(&[0xff; 8]);
    assert_eq!(code(&endless), 1002);
}

#[test]
fn an_unfinished_header_fails_as_soon_as_its_fault_shows() {
    assert_eq!(code(&[0xc2]), 1002);
    assert_eq!(code(&[0x89, 0xfe]), 1002);
}

#[test]
fn text_is_checked_as_a_whole_message() {
    let euro = "€".as_bytes();
    let split = [frame(0x01, &euro[..1]), frame(0x80, &euro[1..])].concat();
    let text = Received::Text(Bytes::from_static("€".as_bytes()));
    assert_eq!(read(&split).unwrap(), [text]);
    assert_eq!(code(&frame(0x81, &euro[..2])), 1007);
    let unfinished = [frame(0x01, &euro[..1]), frame(0x80, &euro[1..2])].concat();
    assert_eq!(code(&unfinished), 1007);
}

#[test]
fn text_fails_with_the_first_byte_that_no_utf_8_has() {
    // Behind f4, 90 is a character over U+10FFFF: the two are neither valid nor the beginning of anything valid.
    let payload = [b"abc\xf4\x90", &[b'x'; 20][..]].concat();
    let whole = frame(0x81, &payload);
    let head = whole.len() - payload.len();
    assert_eq!(read(&whole[..head + 4]), Ok(vec![]));
    assert_eq!(read(&whole[..head + 5]), Err(FrameError::Utf8));

    let fragment = frame(0x01, &payload[..4]);
    assert_eq!(read(&fragment), Ok(vec![]));
    let fragments = [fragment, frame(0x00, &payload[4..5])].concat();
    assert_eq!(read(&fragments), Err(FrameError::Utf8));
}

#[test]
fn a_ping_inside_of_a_character_leaves_the_text_whole() {
    let euro = "€".as_bytes();
    let bytes = [
        frame(0x01, &euro[..1]),
        frame(0x89, b"\xff"),
        frame(0x80, &euro[1..]),
    ];
    assert_eq!(
        read(&bytes.concat()).unwrap(),
        [
            Received::Ping(Bytes::from_static(b"\xff")),
            Received::Text(Bytes::from_static("€".as_bytes())),
        ]
    );
}

#[test]
fn endless_continuation_holds_no_more_than_the_limit() {
    let mut reader = FrameReader::new(LIMIT);
    let mut received = Vec::new();
    read_all(&mut reader, &frame(0x02, b"x"), &mut received).unwrap();
    let empty = frame(0x00, b"").repeat(1000);
    for _ in 0..100 {
        read_all(&mut reader, &empty, &mut received).unwrap();
    }
    let failed =
        (0..LIMIT).find_map(|_| read_all(&mut reader, &frame(0x00, b"x"), &mut received).err());
    assert_eq!(failed, Some(FrameError::TooLarge));
    assert!(received.is_empty());
    let held = &reader.partial.unwrap().payload;
    assert_eq!(held.len(), LIMIT);
    assert!(held.capacity() <= 2 * LIMIT);
}

#[test]
fn close_codes_that_may_not_be_sent_fail() {
    let close = |payload: &[u8]| read(&frame(0x88, payload));
    assert_eq!(close(b""), Ok(vec![Received::Close(None)]));
    for code in [1000_u16, 1003, 1007, 1011, 1014, 3000, 4999] {
        let payload = [&code.to_be_bytes()[..], b"why"].concat();
        assert_eq!(close(&payload), Ok(vec![Received::Close(Some(code))]));
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        assert_eq!(close(&code.to_be_bytes()).unwrap_err().close_code(), 1002);
    }
    assert_eq!(close(b"\x03").unwrap_err().close_code(), 1002);
    assert_eq!(close(b"\x03\xe8\xff").unwrap_err().close_code(), 1007);
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let payload = || prop::collection::vec(any::<u8>(), 0..300);
    let message = prop_oneof![
        payload().prop_map(|payload| frame(0x82, &payload)),
        (payload(), payload(), 0..100_usize).prop_map(|(first, last, ping)| {
            [
                frame(0x02, &first),
                frame(0x89, &vec![7; ping]),
                frame(0x80, &last),
            ]
            .concat()
        }),
        "[a-zäöü€]{0,100}".prop_map(|text| frame(0x81, text.as_bytes())),
        ("[a-zäöü€]{1,100}", any::<prop::sample::Index>()).prop_map(|(text, split)| {
            let (first, last) = text.as_bytes().split_at(split.index(text.len()));
            [frame(0x01, first), frame(0x89, b"ping"), frame(0x80, last)].concat()
        }),
        payload().prop_map(|payload| frame(0x81, &payload)),
        Just(frame(0x8a, b"pong")),
        Just(frame(0x88, &[0x03, 0xe8])),
        prop::collection::vec(any::<u8>(), 1..20),
    ];
    prop::collection::vec(message, 1..6).prop_map(|messages| messages.concat())
}

proptest! {
    #[test]
    fn splits_do_not_change_what_is_read(
        bytes in any_bytes(),
        mut splits in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut whole = Vec::new();
        let outcome = read_all(&mut FrameReader::new(LIMIT), &bytes, &mut whole);
        splits.sort_by_key(|split| split.index(bytes.len()));
        let mut at = 0;
        let mut pieces = Vec::new();
        for split in &splits {
            pieces.push(&bytes[at..split.index(bytes.len())]);
            at = split.index(bytes.len());
        }
        pieces.push(&bytes[at..]);
        let single: Vec<_> = bytes.chunks(1).collect();
        for pieces in [pieces, single] {
            let mut reader = FrameReader::new(LIMIT);
            let mut received = Vec::new();
            let split_outcome = pieces
                .iter()
                .try_for_each(|piece| read_all(&mut reader, piece, &mut received));
            prop_assert_eq!(&received, &whole);
            prop_assert_eq!(split_outcome, outcome);
        }
    }
}
