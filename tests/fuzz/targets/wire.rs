#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anthropic_blocking::fuzzing::wire(input));
