//! `cargo bench`: the cost of this client, beside the lowest cost of the same work.
//!
//! Each row runs this crate and a floor in rounds, in alternating order, against the same server in the
//! same process. A row has the medians, the median of the rounds' ratios with its quartiles, the goal,
//! and whether the goal holds. A missed goal fails nothing; the last lines count the missed goals. CPU
//! times are those of the client's threads (Linux; elsewhere wall times). Wall times contain the share of
//! the server. The floors are bare ureq, and for the budget a bare mutex.
//!
//! ```text
//! cargo bench                   # every row but the runs under limits: minutes, two builds
//! cargo bench -- --quick        # fewer rounds and no builds: less than a minute
//! cargo bench -- --json         # one JSON object per row, the last lines on standard error
//! cargo bench -- stream         # the rows whose name contains a word
//! cargo bench -- hello          # build, size, start and memory of the smallest program
//! cargo bench -- limits         # runs of 500 jobs against servers that limit: five minutes
//! cargo bench -- limits --jobs 5000                # most of an hour
//! cargo bench -- limits --seconds 75 input storm   # less demand; the runs with these names
//! cargo bench -- all            # the rows, and runs of 500 and of 5,000 jobs
//! cargo bench -- soak           # a million requests, 32 threads, every fault: minutes
//! cargo bench -- soak --requests 100000 --seed 7
//! ```
//!
//! Instruction counts do not depend on the load of the machine. The following commands run the calls of
//! one side, with the server in a process that the counter does not follow; the cost of the start cancels
//! out between two numbers of calls. Cases: create-1k, streamed-1k, create-1m, streamed-1m, deltas-10k.
//!
//! ```text
//! CARGO_PROFILE_BENCH_DEBUG=1 cargo bench --no-run    # prints where the program is
//! valgrind --tool=callgrind target/release/deps/bench-… --only create-1k --calls 1000
//! valgrind --tool=callgrind target/release/deps/bench-… --only create-1k --calls 1000 --side floor
//! perf stat -i -e instructions:u target/release/deps/bench-… --only create-1k --calls 1000
//! ```

mod bindings;
mod budget;
mod calls;
mod floor;
mod hello;
mod limits;
mod measure;
mod rows;
#[path = "../it/soak/mod.rs"]
mod soak;
mod workers;

use bindings::Demand;
use measure::Options;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo passes this to every bench.
    arguments.retain(|argument| argument != "--bench");
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--child-serve", case] => return calls::serve(case),
        ["--child-memory", url, side, what] => return rows::measure_memory(url, side, what),
        ["soak", ..] => {
            return println!("{}", soak::run(&soak::Settings::read(&arguments[1..])));
        }
        _ if words.contains(&"--only") => return calls::only(&arguments),
        _ => {}
    }
    let mode = arguments.first().cloned().unwrap_or_default();
    let is_mode = ["limits", "all"].contains(&mode.as_str());
    let mut runs = limits::Settings::take(&mut arguments);
    let options = Options::read(&arguments[usize::from(is_mode)..]);
    if mode != "limits" {
        let ramped_up = budget::start_ramp_up(&options);
        options.head();
        rows::run(&options);
        calls::run(&options);
        hello::run(&options);
        budget::run(&options, ramped_up);
    }
    if is_mode {
        if runs.demands.is_empty() {
            runs.demands = vec![Demand::Jobs(500)];
            if mode == "all" {
                runs.demands.push(Demand::Jobs(5_000));
            }
        }
        limits::run(&options, &runs);
    } else if options.wants("limits") {
        options.left_out("limits: whole runs", "cargo bench -- limits, five minutes");
    }
    options.summary();
}
