#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: spotter::fuzzing::start(), |data: &[u8]| spotter::fuzzing::raw(data));
