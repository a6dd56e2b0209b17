//! Which statuses are retried, compared with the official clients.

use super::*;

/// Where we retry differently from the official clients: status, `x-should-retry`, and the reason.
const OTHER_RETRIES: [(u16, Option<&str>, &str); 12] = {
    const DONE: &str = "a success is no failure, whatever its headers say";
    const MONEY: &str = "no retry pays a bill";
    const NEVER: &str = "the server will not learn the method or the version between two attempts";
    [
        (200, Some("true"), DONE),
        (201, Some("true"), DONE),
        (204, Some("true"), DONE),
        (402, Some("true"), MONEY),
        (501, None, NEVER),
        (501, Some("True"), NEVER),
        (501, Some("1"), NEVER),
        (501, Some(""), NEVER),
        (505, None, NEVER),
        (505, Some("True"), NEVER),
        (505, Some("1"), NEVER),
        (505, Some(""), NEVER),
    ]
};

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn statuses_are_retried_like_official_clients() {
    let tables = read_json("retry_cases.json");
    let rows = list(&tables["measured_should_retry"]["rows"]);
    assert_eq!(rows.len(), 222);
    let mut differences = Vec::new();
    for row in rows {
        let status = row[0]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok());
        let (status, header) = (status.expect("a status"), row[1].as_str());
        let theirs = row[2].as_bool().expect("a decision");
        if is_retried(status, header) != theirs {
            differences.push((status, header));
        }
    }
    let expected = OTHER_RETRIES.map(|row| (row.0, row.1));
    assert_eq!(differences, expected);
    println!("{} rows, {} differences", rows.len(), differences.len());
}

fn is_retried(status: u16, should_retry: Option<&str>) -> bool {
    let stage = Stage::new();
    let header = should_retry.map(|value| ("x-should-retry".to_owned(), value.to_owned()));
    let mut recorded = Recorded::of(status, header.as_slice());
    if matches!(status, 200 | 201) {
        recorded.body = json!({"content": []}).to_string().into_bytes();
    }
    stage.server.push(recorded.reply());
    stage.server.push(Reply::message("Seven."));
    let outcome = stage.ask_with(quick(2));
    let text = outcome.map(|message| message.text());
    match stage.server.request_count() {
        2 => {
            assert_eq!(text.ok().as_deref(), Some("Seven."), "{status}");
            true
        }
        1 => {
            let is_success = matches!(status, 200 | 201);
            assert_eq!(text.ok().as_deref(), is_success.then_some(""), "{status}");
            false
        }
        more => panic!("{status}: {more} requests"),
    }
}
