//! What disks and their controllers do to a file.

use std::ops::Range;

use crate::fuzzing::input::Input;

/// What was done to one file.
#[derive(Debug, Default)]
pub(in crate::datalog) struct Damage {
    /// Whether some of it was written to another place.
    pub(in crate::datalog) is_spliced: bool,
}

impl Damage {
    /// Does one thing to `bytes`, of which `used` were written, over what was there before.
    pub(in crate::datalog) fn inflict(
        &mut self,
        input: &mut Input<'_>,
        bytes: &mut Vec<u8>,
        used: usize,
        before: &[u8],
    ) {
        let kind = input.choice(8);
        let at = (input.short() % (used + 1)).min(bytes.len());
        let range = at..(at + 1 + usize::from(input.byte())).min(bytes.len());
        match kind {
            // A bit.
            0 | 1 => {
                let bit = input.choice(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            // Not written, on a new file and on one that was used.
            2 => bytes[range].fill(0),
            3 => {
                let old = before.get(at..range.end.min(before.len()).max(at));
                let old = old.unwrap_or_default();
                bytes[at..at + old.len()].copy_from_slice(old);
            }
            4 => {
                let with = input.byte();
                bytes[range].fill(with);
            }
            // Everything behind a place: not written, and not there.
            5 => bytes[at..].fill(0),
            6 => bytes.truncate(at),
            // Written to another place.
            _ => {
                let from = (input.short() % (used + 1)).min(bytes.len());
                let copied = copied(bytes, from, &range);
                bytes[at..at + copied.len()].copy_from_slice(&copied);
                self.is_spliced = true;
            }
        }
    }
}

fn copied(bytes: &[u8], from: usize, to: &Range<usize>) -> Vec<u8> {
    let end = (from + to.len()).min(bytes.len());
    bytes[from..end].to_vec()
}
