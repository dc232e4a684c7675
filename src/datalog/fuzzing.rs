//! The files of a data directory as fuzz targets: written right, damaged as the fuzzer says, and read back.
//!
//! Owns what may be said of damaged files: what is read is what was written; what was not touched is read; what is missing is told.
//! `journal` is what was not sealed, `state_log` and the segments (in `segment/fuzzing.rs`) what was, and `directory` is all of it, opened
//! by a start and checked by `verify`.

mod damage;
mod directory;
mod journal;
mod state_log;

pub(in crate::datalog) use damage::Damage;
pub(crate) use directory::directory;
pub(crate) use journal::journal;

use crate::fuzzing::input::Input;

/// The file that says whose a data directory is. Its id is the same each time, or no two inputs would make the same files.
fn format() -> String {
    let text = "infotainer data 1\n00000000-0000-0000-0000-00000000002a\n";
    format!("{text}{:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// What journals are sealed into: segments and the state log. `input`: which, and what is done.
pub(crate) fn sealed(input: &[u8]) {
    let mut input = Input::new(input);
    match input.choice(2) {
        0 => super::segment::fuzzing::segment(&mut input),
        _ => state_log::state_log(&mut input),
    }
}
