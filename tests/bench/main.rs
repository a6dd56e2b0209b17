//! `cargo bench`: what this client costs, beside the least that the same work can cost.
//!
//! Each row runs this crate and a floor in turn, round by round, against the same server in the
//! same process, and prints the median of the ratios with their range. Times are CPU times of the
//! client's thread (Linux; elsewhere wall time). Floors are written with bare ureq. The rows of the
//! budget have no floor: a median, its range and the goal.
//!
//! ```text
//! cargo bench                   # every row
//! cargo bench -- --quick        # fewer rounds
//! cargo bench -- --json         # one JSON object per row
//! cargo bench -- stream         # the rows whose name contains a word
//! cargo bench -- limits         # whole runs against a server that limits: ten minutes
//! cargo bench -- limits --seconds 30 input    # less demand; the runs whose name contains a word
//! ```
//!
//! Instructions do not depend on what else the machine does. This runs the calls of one side, with
//! the server in a process that the counter does not follow; what starting costs cancels out
//! between two numbers of calls. Cases: create-1k, streamed-1k, create-1m, streamed-1m, deltas-10k.
//!
//! ```text
//! CARGO_PROFILE_BENCH_DEBUG=1 cargo bench --no-run    # prints where the program is
//! valgrind --tool=callgrind target/release/deps/bench-… --only create-1k --calls 1000
//! valgrind --tool=callgrind target/release/deps/bench-… --only create-1k --calls 1000 --side floor
//! perf stat -i -e instructions:u target/release/deps/bench-… --only create-1k --calls 1000
//! ```

mod budget;
mod calls;
mod floor;
mod hello;
mod limits;
mod measure;
mod rows;

use measure::Options;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo passes this to every bench.
    arguments.retain(|argument| argument != "--bench");
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--child-serve", case] => return calls::serve(case),
        ["--child-memory", url, side, what] => return rows::measure_memory(url, side, what),
        ["limits", ..] => return limits::run(&arguments[1..]),
        _ if words.contains(&"--only") => return calls::only(&arguments),
        _ => {}
    }
    let options = Options::read(&arguments);
    let ripe = budget::ripen(&options);
    options.head();
    rows::run(&options);
    calls::run(&options);
    hello::run(&options);
    budget::run(&options, ripe);
    options.summary();
}
