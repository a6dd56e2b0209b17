#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

/// One file for all inputs of a process.
static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = format!("anthropic-blocking-fuzz-{}", std::process::id());
    std::env::temp_dir().join(name)
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| anthropic_blocking::fuzzing::journal(&PATH, input));
