//! Behaviour through the public API, against the test server: one binary, one module per subject.

mod budget;
mod client;
mod faults;
mod interop;
mod limits;
mod matrix;
mod recordings;
mod retries;
mod secrets;
mod streams;
mod support;
mod threads;
mod tidy;
mod types;
mod waits;
mod wire;
