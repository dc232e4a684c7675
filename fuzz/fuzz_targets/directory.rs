#![no_main]

use infotainer::fuzzing;

libfuzzer_sys::fuzz_target!(init: infotainer_fuzz::let_sled_panic(), |input: &[u8]| {
    fuzzing::directory(input);
});
