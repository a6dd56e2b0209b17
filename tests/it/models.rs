//! The models endpoints, and how lists follow their pages.

use anthropic_blocking::testing::Reply;
use anthropic_blocking::{ErrorKind, Lifecycle, Model, ModelInfo, Result};
use serde_json::{Value, json};

use crate::support::{Lab, seconds};

const PATH: &str = "/v1/models";

#[test]
fn list_yields_models_of_all_pages() {
    let lab = Lab::new();
    let list = lab.client.models().list().limit(2);
    assert_eq!(
        lab.server.request_count(),
        0,
        "nothing is sent before the first page is requested"
    );
    let models: Vec<ModelInfo> = list.collect::<Result<_>>().expect("all models");
    assert_eq!(models.len(), 5);
    assert_eq!(models[4].id, Model::new("claude-haiku-4-5-20251001"));
    assert_eq!(models[4].lifecycle, Some(Lifecycle::Active));
    assert_eq!(models[4].max_tokens, Some(64_000));
    let queries: Vec<_> = queries(&lab);
    assert_eq!(
        queries,
        [
            "limit=2",
            "limit=2&after_id=claude-opus-5-5",
            "limit=2&after_id=claude-sonnet-5"
        ]
    );
}

#[test]
fn list_requests_only_the_pages_needed() {
    let lab = Lab::new();
    let mut list = lab.client.models().list().limit(2);
    list.next().expect("a model").expect("readable");
    list.next().expect("a model").expect("readable");
    assert_eq!(lab.server.request_count(), 1);
}

#[test]
fn model_is_found_by_alias_and_round_trips() {
    let lab = Lab::new();
    let model = lab
        .client
        .models()
        .get("claude-haiku-4-5")
        .expect("a model");
    assert_eq!(model.display_name, "Claude Haiku 4.5");
    let sent: Value = lab
        .client
        .raw()
        .get("/v1/models/claude-haiku-4-5")
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(serde_json::to_value(&model).expect("JSON"), sent);
    let error = lab
        .client
        .models()
        .get("no/such?model")
        .expect_err("no such model");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let last = lab.server.take_requests().pop().expect("a request");
    assert_eq!(last.path, "/v1/models/no%2Fsuch%3Fmodel");
    let error = lab.client.models().get("").expect_err("no id");
    assert_eq!(error.to_string(), "GET /v1/models: \"\" is no id");
}

#[test]
fn list_pages_backwards() {
    let lab = Lab::new();
    lab.server.push_all([
        page(json!([{"id": "c"}, {"id": "d"}]), "c", "d", true),
        page(json!([{"id": "a"}, {"id": "b"}]), "a", "b", false),
    ]);
    let list = lab.client.models().list().before("e/f");
    assert_eq!(ids(list), ["c", "d", "a", "b"]);
    assert_eq!(queries(&lab), ["before_id=e%2Ff", "before_id=c"]);
}

#[test]
fn id_lists_end_like_the_official_clients() {
    for last in [
        page(json!([]), "x", "x", true),
        page(json!([]), "x", "x", false),
        Reply::json(200, json!({"data": [], "has_more": true})),
    ] {
        let lab = Lab::new();
        lab.server
            .push_all([page(json!([{"id": "a"}]), "a", "a", true), last]);
        assert_eq!(ids(lab.client.models().list().after("z")), ["a"]);
        assert_eq!(queries(&lab), ["after_id=z", "after_id=a"]);
    }
    for only in [
        json!({"data": [{"id": "a"}]}),
        json!({"data": [{"id": "a"}], "has_more": true, "last_id": null}),
        json!({"data": [{"id": "a"}], "has_more": true, "last_id": ""}),
        json!({"data": [{"id": "a"}], "has_more": false, "last_id": "a", "new": 1}),
    ] {
        let lab = Lab::new();
        lab.server.push(Reply::json(200, &only));
        assert_eq!(ids(lab.client.models().list()), ["a"], "{only}");
        assert_eq!(lab.server.request_count(), 1);
    }
}

#[test]
fn empty_token_page_may_have_a_next_page() {
    let lab = Lab::new();
    for page in [
        json!({"data": [{"id": "a"}], "next_page": "p+1"}),
        json!({"data": [], "next_page": "p2"}),
        json!({"data": [{"id": "b"}], "next_page": null}),
    ] {
        lab.server.push(Reply::json(200, page));
    }
    let list = lab
        .client
        .raw()
        .pages::<ModelInfo>("/v1/files?x=y")
        .limit(7);
    assert_eq!(ids(list), ["a", "b"]);
    assert_eq!(
        queries(&lab),
        [
            "x=y&limit=7",
            "x=y&limit=7&page=p%2B1",
            "x=y&limit=7&page=p2"
        ]
    );
}

#[test]
fn raw_list_may_begin_at_its_query() {
    for (path, first, second) in [
        ("?after_id=z", "after_id=z", "after_id=a"),
        (
            "?limit=2&after_id=z&x=y",
            "after_id=z&x=y&limit=7",
            "x=y&limit=7&after_id=a",
        ),
        (
            "?x=after_id",
            "x=after_id&limit=7",
            "x=after_id&limit=7&after_id=a",
        ),
    ] {
        let lab = Lab::new();
        lab.server.push_all([
            page(json!([{"id": "a"}]), "a", "a", true),
            page(json!([{"id": "b"}]), "b", "b", false),
        ]);
        let raw = lab.client.raw();
        let mut list = raw.pages::<ModelInfo>(format!("/v1/files{path}"));
        if first.contains("limit") {
            list = list.limit(7);
        }
        assert_eq!(ids(list), ["a", "b"]);
        assert_eq!(queries(&lab), [first, second]);
    }
}

#[test]
fn raw_list_follows_every_paging_scheme() {
    let lab = Lab::new();
    let list = lab.client.raw().pages::<ModelInfo>("/v1/models?x=y");
    assert_eq!(ids(list.limit(2)).len(), 5);
    assert_eq!(
        queries(&lab),
        [
            "x=y&limit=2",
            "x=y&limit=2&after_id=claude-opus-5-5",
            "x=y&limit=2&after_id=claude-sonnet-5"
        ]
    );
    let lab = Lab::new();
    lab.server.push_all([
        Reply::json(200, json!({"data": [{"id": "a"}], "next_page": "p1"})),
        Reply::json(200, json!({"data": [{"id": "b"}], "next_page": null})),
    ]);
    let list = lab.client.raw().pages::<ModelInfo>("/v1/files");
    assert_eq!(ids(list.after("z")), ["a", "b"]);
    assert_eq!(queries(&lab), ["after_id=z", "page=p1"]);
}

#[test]
fn raw_list_refuses_what_is_no_path() {
    let (lab, other_server) = (Lab::new(), crate::support::server());
    for path in [
        format!("@{}/v1/files", other_server.address()),
        ".evil.example/v1/files".to_owned(),
        "v1/files".to_owned(),
        "/v1/a b".to_owned(),
        String::new(),
    ] {
        let mut list = lab.client.raw().pages::<Value>(&path);
        let error = list.next().expect("an item").expect_err("no path");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{path}");
        assert!(error.to_string().contains("is no path"), "{error}");
        assert!(list.next().is_none());
    }
    assert_eq!(other_server.connection_count(), 0);
    assert_eq!(lab.server.request_count(), 0);
}

#[test]
fn unreadable_item_is_its_own_error() {
    let lab = Lab::new();
    lab.server.push(page(
        json!([{"id": "a"}, {"no_id": 1}, 7, {"id": "b"}]),
        "a",
        "b",
        false,
    ));
    let items: Vec<_> = lab.client.models().list().collect();
    let read: Vec<bool> = items.iter().map(Result::is_ok).collect();
    assert_eq!(read, [true, false, false, true]);
    let error = items[1].as_ref().expect_err("no model");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.request_id().is_some());
}

#[test]
fn failed_page_is_the_last_item() {
    let lab = Lab::new();
    lab.server.push_all([
        page(json!([{"id": "a"}]), "a", "a", true),
        Reply::error(400, "invalid_request_error", "after_id: odd"),
    ]);
    let mut list = lab.client.models().list();
    assert!(list.next().expect("an item").is_ok());
    let error = list.next().expect("an item").expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(list.next().is_none());
    assert_eq!(lab.server.request_count(), 2);
}

#[test]
fn failed_page_is_retried() {
    let lab = Lab::new();
    lab.server
        .push_all([Reply::overloaded(), Reply::canned().reset_before_headers()]);
    assert_eq!(lab.client.models().list().count(), 5);
    assert_eq!(lab.clock.sleeps().len(), 2);
    assert!(lab.clock.elapsed() < seconds(60));
}

#[test]
fn empty_pages_in_a_circle_are_an_error() {
    let lab = Lab::new();
    lab.server.respond_with(|request| {
        let next = if request.query.as_deref() == Some("page=a") {
            "b"
        } else {
            "a"
        };
        Reply::json(200, json!({"data": [], "next_page": next}))
    });
    let mut list = lab.client.raw().pages::<ModelInfo>("/v1/files");
    let error = list.next().expect("an item").expect_err("a circle");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("pages without any"), "{error}");
    assert_eq!(lab.server.request_count(), 101);
    assert!(list.next().is_none());
}

#[test]
fn list_in_a_circle_is_an_error() {
    let lab = Lab::new();
    lab.server
        .respond_with(|_| page(json!([{"id": "a"}]), "a", "a", true));
    let items: Vec<_> = lab.client.models().list().take(100).collect();
    assert!(items.len() < 10, "{} items", items.len());
    let error = items
        .last()
        .expect("an item")
        .as_ref()
        .expect_err("a circle");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("the one before"), "{error}");
}

fn page(data: Value, first: &str, last: &str, has_more: bool) -> Reply {
    Reply::json(
        200,
        json!({"data": data, "first_id": first, "last_id": last, "has_more": has_more}),
    )
}

#[track_caller]
fn ids(list: impl Iterator<Item = Result<ModelInfo>>) -> Vec<String> {
    list.map(|model| model.expect("a model").id.to_string())
        .collect()
}

/// Returns the queries so far, and checks that all requests were GETs without a body.
fn queries(lab: &Lab) -> Vec<String> {
    let requests = lab.server.requests().into_iter();
    requests
        .map(|request| {
            assert_eq!((&*request.method, &*request.body), ("GET", &b""[..]));
            assert!(
                [PATH, "/v1/files"].contains(&&*request.path),
                "{}",
                request.path
            );
            request.query.unwrap_or_default()
        })
        .collect()
}
