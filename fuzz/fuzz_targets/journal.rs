#![no_main]

use infotainer::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::journal(input));
