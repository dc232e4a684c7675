//! The bytes of a segment's header, run index, footer and trailer.
//!
//! Fixed fields are little endian; the rest are variable-length integers of 7 bits a byte, lowest first, so that a run of
//! ten publications costs some 20 bytes in the footer and as many in its index. Decoding believes nothing: every sum is
//! checked, and a decoded run index must add up to its descriptor.

use super::{Block, RunDescriptor, SegmentHeader, SegmentId};
use crate::datalog::LogNumber;
use crate::protocol::{NUMBER_LIMIT, Sequence, Timestamp};

pub(super) const HEADER_LEN: usize = 40;
pub(super) const TRAILER_LEN: usize = 28;
/// Publication id, and the length of the payload with [`CLIENT_ID`].
pub(super) const ID_ENTRY_LEN: usize = 20;
/// Set beside the payload's length where the id was supplied by a client. Payloads are far shorter.
pub(super) const CLIENT_ID: u32 = 1 << 31;

const HEADER_MAGIC: [u8; 8] = *b"itsegm\x01\n";
const TRAILER_MAGIC: [u8; 8] = *b"itsfoot\n";

pub(super) fn encode_header(header: &SegmentHeader) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(&HEADER_MAGIC);
    out[8..16].copy_from_slice(&header.id.0.to_le_bytes());
    out[16..24].copy_from_slice(&header.generations.0.to_le_bytes());
    out[24..32].copy_from_slice(&header.generations.1.to_le_bytes());
    out[32] = header.level;
    let crc = crc32c::crc32c(&out[..36]);
    out[36..].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode_header(bytes: &[u8; HEADER_LEN]) -> Option<SegmentHeader> {
    let mut rest = bytes.as_slice();
    let magic = take::<8>(&mut rest)?;
    let id = u64::from_le_bytes(take(&mut rest)?);
    let low = u64::from_le_bytes(take(&mut rest)?);
    let high = u64::from_le_bytes(take(&mut rest)?);
    let [level, ..] = take::<4>(&mut rest)?;
    let crc = u32::from_le_bytes(take(&mut rest)?);
    (magic == HEADER_MAGIC && crc == crc32c::crc32c(&bytes[..36]) && low <= high).then_some(
        SegmentHeader {
            id: SegmentId(id),
            generations: (low, high),
            level,
        },
    )
}

/// What the trailer says of the footer that ends where the trailer begins.
pub(super) struct Trailer {
    pub(super) footer_len: u64,
    pub(super) runs: u32,
    pub(super) footer_crc: u32,
}

pub(super) fn encode_trailer(trailer: &Trailer) -> [u8; TRAILER_LEN] {
    let mut out = [0; TRAILER_LEN];
    out[..8].copy_from_slice(&trailer.footer_len.to_le_bytes());
    out[8..12].copy_from_slice(&trailer.runs.to_le_bytes());
    out[12..16].copy_from_slice(&trailer.footer_crc.to_le_bytes());
    out[16..24].copy_from_slice(&TRAILER_MAGIC);
    let crc = crc32c::crc32c(&out[..24]);
    out[24..].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode_trailer(bytes: &[u8; TRAILER_LEN]) -> Option<Trailer> {
    let mut rest = bytes.as_slice();
    let footer_len = u64::from_le_bytes(take(&mut rest)?);
    let runs = u32::from_le_bytes(take(&mut rest)?);
    let footer_crc = u32::from_le_bytes(take(&mut rest)?);
    let magic = take::<8>(&mut rest)?;
    let crc = u32::from_le_bytes(take(&mut rest)?);
    (magic == TRAILER_MAGIC && crc == crc32c::crc32c(&bytes[..24])).then_some(Trailer {
        footer_len,
        runs,
        footer_crc,
    })
}

/// The footer's checksum covers the header, so that neither fits another file's other half.
pub(super) fn footer_crc(header: &[u8; HEADER_LEN], footer: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), footer)
}

/// The footer: every run, one behind the other.
pub(super) fn encode_footer(runs: &[RunDescriptor]) -> Vec<u8> {
    let mut out = Vec::with_capacity(runs.len() * 28);
    for run in runs {
        encode_run(run, &mut out);
    }
    out
}

/// Takes the next run off `rest`; None if there is none, or not in a file of `file_len`.
pub(in crate::datalog) fn next_run(
    rest: &mut &[u8],
    segment: SegmentId,
    file_len: u64,
) -> Option<RunDescriptor> {
    decode_run(segment, rest).filter(|run| run.index_offset + u64::from(run.index_len) <= file_len)
}

/// Adds a descriptor, but for its segment.
pub(in crate::datalog) fn encode_run(run: &RunDescriptor, out: &mut Vec<u8>) {
    put_varint(out, run.log.0);
    put_varint(out, run.first.0);
    put_varint(out, run.last.0 - run.first.0);
    put_varint(out, run.first_time.0);
    put_varint(out, run.last_time.0 - run.first_time.0);
    put_varint(out, run.bytes);
    put_varint(out, run.index_offset);
    put_varint(out, u64::from(run.index_len));
    put_varint(out, run.stored_bytes);
    out.push(u8::from(run.client_ids));
}

fn decode_run(segment: SegmentId, rest: &mut &[u8]) -> Option<RunDescriptor> {
    let log = LogNumber(take_varint(rest)?);
    let first = Sequence(take_varint(rest)?);
    let last = first.0.checked_add(take_varint(rest)?)?;
    let first_time = take_varint(rest)?;
    let last_time = first_time.checked_add(take_varint(rest)?)?;
    let bytes = take_varint(rest)?;
    let index_offset = take_varint(rest)?;
    let index_len = u32::try_from(take_varint(rest)?).ok()?;
    let stored_bytes = take_varint(rest)?;
    let [client_ids] = take::<1>(rest)?;
    let end = index_offset.checked_add(u64::from(index_len))?;
    let sound = first.0 > 0
        && last < NUMBER_LIMIT
        && stored_bytes <= end
        && u64::from(index_len) <= stored_bytes
        && client_ids <= 1;
    sound.then_some(RunDescriptor {
        log,
        first,
        last: Sequence(last),
        first_time: Timestamp(first_time),
        last_time: Timestamp(last_time),
        bytes,
        segment,
        index_offset,
        index_len,
        stored_bytes,
        client_ids: client_ids == 1,
    })
}

/// Adds one block to a run index that is being made. `previous_time` is the last time of the block before it, the run's
/// first time for the first block.
pub(super) fn encode_block(block: &Block, previous_time: Timestamp, out: &mut Vec<u8>) {
    put_varint(out, u64::from(block.len));
    put_varint(out, block.count());
    put_varint(out, block.first_time.0 - previous_time.0);
    put_varint(out, block.last_time.0 - block.first_time.0);
    put_varint(out, block.bytes);
    out.extend_from_slice(&block.crc.to_le_bytes());
    out.extend_from_slice(&block.ids_crc.to_le_bytes());
}

/// Ends a run index: its checksum is bound to the run, so that no other run's can be taken for it.
pub(super) fn seal_index(segment: SegmentId, log: LogNumber, first: Sequence, index: &mut Vec<u8>) {
    let crc = index_crc(segment, log, first, index);
    index.extend_from_slice(&crc.to_le_bytes());
}

fn index_crc(segment: SegmentId, log: LogNumber, first: Sequence, index: &[u8]) -> u32 {
    let mut seed = [0; 24];
    seed[..8].copy_from_slice(&segment.0.to_le_bytes());
    seed[8..16].copy_from_slice(&log.0.to_le_bytes());
    seed[16..].copy_from_slice(&first.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), index)
}

/// Why a run index can't be used.
pub(super) fn decode_index(run: &RunDescriptor, bytes: &[u8]) -> Result<Vec<Block>, &'static str> {
    let Some((entries, crc)) = bytes.split_last_chunk::<4>() else {
        return Err("the run index is too short");
    };
    if u32::from_le_bytes(*crc) != index_crc(run.segment, run.log, run.first, entries) {
        return Err("the run index has a wrong checksum");
    }
    decode_blocks(run, entries).ok_or("the run index does not fit its run")
}

fn decode_blocks(run: &RunDescriptor, mut rest: &[u8]) -> Option<Vec<Block>> {
    let mut blocks = Vec::with_capacity(rest.len() / 13);
    let end = run.index_offset + u64::from(run.index_len);
    let mut offset = end.checked_sub(run.stored_bytes)?;
    let (mut next, mut time, mut bytes_before) = (run.first.0, run.first_time.0, 0_u64);
    while !rest.is_empty() {
        let len = u32::try_from(take_varint(&mut rest)?).ok()?;
        let count = take_varint(&mut rest)?;
        let first_time = time.checked_add(take_varint(&mut rest)?)?;
        let last_time = first_time.checked_add(take_varint(&mut rest)?)?;
        let bytes = take_varint(&mut rest)?;
        let crc = u32::from_le_bytes(take(&mut rest)?);
        let ids_crc = u32::from_le_bytes(take(&mut rest)?);
        let last = next.checked_add(count.checked_sub(1)?)?;
        let block = Block {
            log: run.log,
            offset,
            len,
            first: Sequence(next),
            last: Sequence(last),
            first_time: Timestamp(first_time),
            last_time: Timestamp(last_time),
            bytes,
            bytes_before,
            crc,
            ids_crc,
        };
        let ids_len = count.checked_mul(ID_ENTRY_LEN as u64)?;
        offset = offset.checked_add(u64::from(len))?.checked_add(ids_len)?;
        // Also bounds `last`, before anything is added to it.
        if last > run.last.0 || offset > run.index_offset {
            return None;
        }
        bytes_before = bytes_before.checked_add(bytes)?;
        (next, time) = (last + 1, last_time);
        blocks.push(block);
    }
    let whole = next == run.last.0 + 1
        && time == run.last_time.0
        && bytes_before == run.bytes
        && offset == run.index_offset
        && blocks
            .first()
            .is_some_and(|block| block.first_time == run.first_time);
    whole.then_some(blocks)
}

/// Adds `value` in 7-bit groups, the lowest first.
pub(in crate::datalog) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes what [`put_varint`] added off `rest`; None if there is no whole number that fits 64 bits.
pub(in crate::datalog) fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        let group = u64::from(byte & 0x7f);
        let shift = 7 * at as u32;
        if shift == 63 && group > 1 {
            return None;
        }
        value |= group << shift;
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Some(value);
        }
    }
    None
}

pub(in crate::datalog) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}
