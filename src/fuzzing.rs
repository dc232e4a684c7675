//! What the fuzz targets run: one function for each, from any bytes to a panic if a promise is broken.
//!
//! Owns the oracles, and how bytes become what is tested. Does not own the fuzzer: `fuzz/` calls these functions from libFuzzer, and the
//! tests here call them with what it found and with the seeds, so that both count without any tool. Only with the feature `fuzzing`, and in
//! tests.
//!
//! Invariants: a function tells the same bytes the same each time, whatever came before; it leaves nothing behind but, until the thread
//! ends, a folder among the temporary ones.

#![allow(missing_docs, reason = "the modules say what each target is about")]

mod cbor;
mod codec;
mod frames;
pub(crate) mod input;
#[cfg(test)]
mod tests;

pub use codec::codec;
pub use frames::frames;

/// Journals; see `datalog::fuzzing::journal`.
pub fn journal(input: &[u8]) {
    crate::datalog::fuzzing::journal(input);
}

/// Segments and the state log; see `datalog::fuzzing`.
pub fn sealed(input: &[u8]) {
    crate::datalog::fuzzing::sealed(input);
}

/// A whole data directory; see `datalog::fuzzing::directory`.
pub fn directory(input: &[u8]) {
    crate::datalog::fuzzing::directory(input);
}
