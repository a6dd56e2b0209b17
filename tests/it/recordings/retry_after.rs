//! `retry-after` in all its forms, read as the official clients read it.

use super::*;

/// How long a client waits after a refusal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wait {
    /// For these seconds; we add up to 0.1 s, and wait at least 0.25 s for an overload.
    Asked(f64),
    /// For its own backoff; ours is one second for a 429, in which all requests of the model pause.
    Own,
    /// Not at all: the client fails, or retries at once.
    Not,
}

/// Where we wait differently from an official client: the table, the headers, how we wait, and
/// the reason. Each difference must occur in the test.
const OTHER_WAITS: &[(&str, &str, Wait, &str)] = {
    use Wait::{Asked, Own};
    const LONG: &str = "it said that an earlier try fails, so that a long wait is not shortened";
    const DATE: &str = "a date of RFC 3339 is as clear as one of HTTP";
    const FIRST: &str = "a useless retry-after-ms does not make a good retry-after useless";
    const BOUND: &str =
        "a finite wait is believed, if only for 49 days; Client::deadline bounds it";
    &[
        ("python 0.125", "retry-after: 61", Asked(61.0), LONG),
        (
            "python 0.125",
            "retry-after: Fri, 29 Sep 2023 16:27:38 GMT",
            Asked(61.0),
            LONG,
        ),
        (
            "python 0.125",
            "retry-after: 99999999999999999999999999999999999",
            Asked(4_294_967.0),
            BOUND,
        ),
        (
            "python",
            "retry-after: inf",
            Own,
            "what is not finite is no number of seconds",
        ),
        (
            "python",
            "retry-after: 1_000",
            Own,
            "digits with underscores are Python's own",
        ),
        (
            "python",
            "retry-after: 2023-09-29T16:26:57Z",
            Asked(20.0),
            DATE,
        ),
        (
            "python",
            "retry-after: ١٢",
            Own,
            "a header that is not ASCII is no reason to fail",
        ),
        (
            "python",
            "retry-after-ms: 0, retry-after: 20",
            Asked(20.0),
            FIRST,
        ),
        (
            "typescript",
            "retry-after: 7s",
            Own,
            "a number with something behind it is not what the standard says",
        ),
        (
            "typescript",
            "retry-after: 2147484",
            Asked(2_147_484.0),
            BOUND,
        ),
        (
            "go",
            "retry-after: -10",
            Own,
            "retrying at once would be the worst reaction",
        ),
        (
            "go",
            "retry-after: 5000000",
            Asked(4_294_967.0),
            "cut to 49 days, as Python does it",
        ),
    ]
};

/// Rows that state the rules of the TypeScript and Go clients.
const WORDED: [(&str, &str, &str, Wait); 12] = [
    ("typescript", "retry-after-ms", "10", Wait::Asked(0.01)),
    ("typescript", "retry-after", "0.1", Wait::Asked(0.1)),
    ("typescript", "retry-after", "7s", Wait::Asked(7.0)),
    ("typescript", "retry-after", "1e3", Wait::Asked(1000.0)),
    ("typescript", "retry-after", "soon", Wait::Own),
    ("typescript", "retry-after", "2147484", Wait::Own),
    ("go", "retry-after", "0.1", Wait::Asked(0.1)),
    ("go", "retry-after-ms", "100", Wait::Asked(0.1)),
    ("go", "retry-after", "-10", Wait::Not),
    ("go", "retry-after", "7200", Wait::Asked(7200.0)),
    ("go", "retry-after", "5000000", Wait::Asked(5_000_000.0)),
    (
        "go",
        "retry-after",
        "Fri, 29 Sep 2023 16:26:57 GMT",
        Wait::Asked(20.0),
    ),
];

/// A row of a table: the client, the headers, the number of earlier failed attempts, the wait.
struct Row {
    table: &'static str,
    headers: Vec<(String, String)>,
    failures: usize,
    theirs: Wait,
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn retry_after_is_parsed_like_official_clients() {
    let mut unseen: Vec<_> = OTHER_WAITS.iter().map(|row| (row.0, row.1)).collect();
    let rows = rows();
    assert_eq!(rows.len(), 16 + 51 + WORDED.len());
    for row in &rows {
        let headers: Vec<_> = row
            .headers
            .iter()
            .map(|(n, v)| format!("{n}: {v}"))
            .collect();
        let headers = headers.join(", ");
        let other = OTHER_WAITS
            .iter()
            .find(|other| (other.0, other.1) == (row.table, headers.as_str()));
        for status in [429, 503] {
            let at = format!("{}, {status}, {headers:?}", row.table);
            let wait = wait_after(status, row);
            if let Some((table, name, ours, _)) = other {
                assert!(
                    fits(status, wait, *ours),
                    "{at}: waited {wait:?}, not {ours:?}"
                );
                let theirs = row.theirs;
                assert!(
                    !fits(status, wait, theirs),
                    "{at}: {theirs:?} is no difference any more"
                );
                unseen.retain(|seen| *seen != (*table, *name));
            } else {
                let theirs = row.theirs;
                assert!(
                    fits(status, wait, theirs),
                    "{at}: waited {wait:?}, they {theirs:?}"
                );
            }
        }
    }
    assert!(unseen.is_empty(), "no row is so: {unseen:?}");
    println!(
        "{} rows, {} of them with a difference",
        rows.len(),
        OTHER_WAITS.len()
    );
}

fn rows() -> Vec<Row> {
    let tables = read_json("retry_cases.json");
    assert_eq!(tables["clock_unix"], CLOCK);
    let mut rows = Vec::new();
    for row in list(&tables["sdk_python_0_125_table"]["rows"]) {
        let headers = vec![("retry-after".to_owned(), text(&row[1]).to_owned())];
        rows.push(Row::of_python("python 0.125", headers, &row[0], &row[2]));
    }
    for row in list(&tables["measured_python"]["rows"]) {
        assert_eq!(row["max_retries"], 3);
        let headers = row["headers"].as_object().expect("headers");
        let mut headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.clone(), text(value).to_owned()))
            .collect();
        // `retry-after-ms` takes precedence.
        headers.sort_by_key(|(name, _)| !name.ends_with("-ms"));
        let (left, wait) = (&row["remaining_retries"], &row["timeout_s"]);
        rows.push(Row::of_python("python", headers, left, wait));
    }
    rows.extend(WORDED.map(|(table, name, value, theirs)| Row {
        table,
        headers: vec![(name.to_owned(), value.to_owned())],
        failures: 0,
        theirs,
    }));
    rows
}

impl Row {
    fn of_python(
        table: &'static str,
        headers: Vec<(String, String)>,
        retries_left: &Value,
        wait: &Value,
    ) -> Row {
        let retries = 3 - retries_left.as_i64().expect("a number");
        let computed = (0.5 * 2_f64.powf(retries as f64)).min(8.0);
        Row {
            table,
            headers,
            failures: usize::try_from(retries).expect("no retry in advance"),
            theirs: match wait.as_f64() {
                Some(wait) if wait == computed => Wait::Own,
                Some(wait) => Wait::Asked(wait),
                None => Wait::Not,
            },
        }
    }
}

/// Returns the wait after a response with this status and the row's headers. The backoff takes
/// milliseconds, so that it cannot be confused with the wait that the server asks for.
#[track_caller]
fn wait_after(status: u16, row: &Row) -> Duration {
    // Nine failures show what a thousand would; the client's retry budget permits ten.
    let failures = row.failures.min(9);
    let stage = Stage::new();
    let refusal = Recorded::of(status, &row.headers).reply();
    stage.server.push_all(vec![refusal; failures + 1]);
    stage.server.push(Reply::message("Seven."));
    let outcome = stage.ask_with(quick(u32::MAX));
    let message = outcome.unwrap_or_else(|error| panic!("{:?}: {error:?}", row.headers));
    let waits: Vec<_> = message.attempts()[1..]
        .iter()
        .map(|attempt| attempt.waited.total())
        .collect();
    assert_eq!(waits.len(), failures + 1);
    if failures > 0 && status != 429 {
        check_backoff(&waits, 0.001, 0.016);
    }
    waits[0]
}

pub fn fits(status: u16, wait: Duration, expected: Wait) -> bool {
    match expected {
        Wait::Asked(asked) if status == 429 => is_between(wait, asked, asked + 0.11),
        Wait::Asked(asked) => is_between(wait, asked.max(0.25), asked.max(0.5) + 0.01),
        Wait::Own if status == 429 => is_between(wait, 1.0, 1.11),
        Wait::Own => is_between(wait, 0.001, 0.003),
        Wait::Not => wait.is_zero(),
    }
}
