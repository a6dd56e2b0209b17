//! Requests a motto at build time. Without a key, offline, or after the deadline, the build uses the
//! motto that is checked in.

use std::time::Duration;
use std::{env, fs, path::Path};

use anthropic_blocking::{Client, MessageRequest, Result};

const KEYS: [&str; 2] = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"];

fn main() {
    println!("cargo::rerun-if-changed=motto.txt");
    for name in KEYS.iter().chain(&["ANTHROPIC_BASE_URL"]) {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let motto = ask().unwrap_or_else(|error| {
        if KEYS.iter().any(|key| env::var_os(key).is_some()) {
            println!("cargo::warning=the motto is the one checked in: {error}");
        }
        fs::read_to_string("motto.txt").expect("motto.txt beside build.rs")
    });
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("motto.txt"), motto.trim()).expect("a writable OUT_DIR");
}

fn ask() -> Result<String> {
    let client = Client::builder()
        .env()
        .deadline(Duration::from_secs(20))
        .build()?;
    let request = MessageRequest::new("claude-haiku-4-5", 64)
        .user("A motto of at most eight words for a program that waits well. Only the motto.");
    Ok(client.messages().create(&request)?.text())
}
