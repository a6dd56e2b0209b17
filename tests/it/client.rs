//! How a client is built, and what it sends.

use std::net::TcpStream;
use std::time::Duration;

use anthropic_blocking::testing::{RecordedRequest, Reply, TestServer};
use anthropic_blocking::{
    Client, ClientBuilder, ErrorKind, MessageRequest, Model, Options, RetryPolicy, StopReason,
};
use serde_json::{Value, json};

use crate::support::child;
use crate::support::{
    KEY, Lab, PROMPT, builder, builder_without_key, closed_port, request, seconds, server,
};

#[test]
fn each_invalid_setting_has_its_own_error_text() {
    let key = || Client::builder().api_key("k");
    let url = |url: &str| key().base_url(url);
    let header = |name: &str, value: &str| key().header(name, value);
    let zero = Duration::ZERO;
    let rows: Vec<(ClientBuilder, &str)> = vec![
        (
            Client::builder(),
            "there is no API key; set ANTHROPIC_API_KEY, or give one",
        ),
        (Client::builder().api_key(""), "the API key is empty"),
        (Client::builder().auth_token(""), "the auth token is empty"),
        (Client::builder().api_key("k\n"), ODD_KEY),
        (Client::builder().api_key("\"k\""), ODD_KEY),
        (Client::builder().api_key("'k'"), ODD_KEY),
        (
            Client::builder().auth_token("Bearer t"),
            "the auth token contains a line break, a blank, a quotation mark or another character \
             that no key has",
        ),
        (
            key().auth_token("t"),
            "there are two credentials, x-api-key and authorization",
        ),
        (
            header("X-Api-Key", "k"),
            "there is the API key, and a header x-api-key as well",
        ),
        (
            header("Authorization", "k"),
            "there are two credentials, x-api-key and authorization",
        ),
        (
            Client::builder()
                .auth_token("t")
                .header("authorization", "t"),
            "there is the auth token, and a header authorization as well",
        ),
        (header("a b", "v"), r#""a b" is not a valid header name"#),
        (header("", "v"), r#""" is not a valid header name"#),
        (
            header("n\u{e9}", "v"),
            "\"n\u{e9}\" is not a valid header name",
        ),
        (
            header("x-a", "v\r\nx-b: w"),
            "the value of the header x-a contains a line break or another control character",
        ),
        (header("Host", "v"), "the header Host is the client's own"),
        (
            header("content-length", "1"),
            "the header content-length is the client's own",
        ),
        (
            header("Transfer-Encoding", "x"),
            "the header Transfer-Encoding is the client's own",
        ),
        (
            header("connection", "x"),
            "the header connection is the client's own",
        ),
        (
            key().version("2023-06-01\n"),
            "the value of the header anthropic-version contains a line break or another control \
             character",
        ),
        (
            key().beta("a\n"),
            "the value of the header anthropic-beta contains a line break or another control \
             character",
        ),
        (
            key().user_agent("a\n"),
            "the value of the header user-agent contains a line break or another control character",
        ),
        (url(""), r#"the base URL "" is not a valid URL"#),
        (
            url("https://a b"),
            r#"the base URL "https://a b" is not a valid URL"#,
        ),
        (
            url("https://"),
            r#"the base URL "https://" is not a valid URL"#,
        ),
        (
            url("https://x/#f"),
            r#"the base URL "https://x/#f" is not a valid URL"#,
        ),
        (
            url("api.example"),
            r#"the base URL "api.example" must begin with https://"#,
        ),
        (url("/v1"), r#"the base URL "/v1" must begin with https://"#),
        (
            url("ftp://x"),
            r#"the base URL "ftp://x" must begin with https://"#,
        ),
        (
            url("https://u:p@x"),
            "the base URL must not contain a user name or password",
        ),
        (
            url("http://api.example"),
            "the base URL http://api.example would send the key unencrypted; use https, or \
             allow_http",
        ),
        (key().connect_timeout(zero), "connect_timeout is zero"),
        (key().idle_timeout(zero), "idle_timeout is zero"),
        (key().timeout(zero), "timeout is zero"),
        (key().deadline(zero), "deadline is zero"),
        (key().proxy("ftp://proxy.example:21"), INVALID_PROXY),
        (key().proxy(""), INVALID_PROXY),
        (
            key().proxy("http://user:pass#word@proxy.example:3128"),
            UNENCODED,
        ),
        (
            key().proxy("http://user:12/34@proxy.example:3128"),
            UNENCODED,
        ),
        (
            key().proxy("http://user:12?34@proxy.example:3128"),
            UNENCODED,
        ),
        (key().proxy("http://proxy.example:312888"), UNENCODED),
        (key().proxy("http://proxy.example:0"), UNENCODED),
        (
            key().root_certificates("no certificate"),
            "there is no PEM certificate in the root certificates",
        ),
        (
            key().root_certificates("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n"),
            "the root certificates are not valid PEM: base64 decode error: InvalidCharacter(42)",
        ),
    ];
    for (index, (builder, text)) in rows.into_iter().enumerate() {
        let error = match builder.build() {
            Ok(_) => panic!("row {index} is built, instead of: {text}"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Config, "row {index}");
        assert_eq!(
            error.to_string(),
            format!("building the client: {text}"),
            "row {index}"
        );
        assert!(
            !error.is_retryable() && error.attempts().is_empty(),
            "row {index}"
        );
    }
}

const ODD_KEY: &str = "the API key contains a line break, a blank, a quotation mark or another character \
                       that no key has";
const INVALID_PROXY: &str =
    "the proxy's URL is invalid; give one such as http://proxy.example:8080";

const UNENCODED: &str = "the proxy's URL is invalid: nothing may follow its host and port; in a user \
                         name or a password # / ? and the like must be percent-encoded";

#[test]
fn proxy_accepts_encoded_password_or_no_scheme() {
    for url in [
        "http://user:12%2334%2F@proxy.example:3128/",
        "http://user:p@ss:word@proxy.example:3128",
        "user@proxy.example:3128",
        "proxy.example",
        "socks5h://[::1]:1080",
        "https://[2001:db8::1]",
    ] {
        let client = Client::builder().api_key("k").proxy(url).build();
        assert!(client.is_ok(), "{url}: {client:?}");
    }
}

#[test]
fn setters_refuse_unsendable_options() {
    let refused = |options: anthropic_blocking::Result<Options>| {
        let error = options.map(drop).expect_err("an unusable header");
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    assert_eq!(
        refused(Options::new().header("host", "x")),
        "building the client: the header host is the client's own"
    );
    for name in ["x-api-key", "Authorization"] {
        assert_eq!(
            refused(Options::new().header(name, " ")),
            "building the client: a header that should prove who is calling is empty"
        );
    }
    for option in [
        Options::new().header("a b", "v"),
        Options::new().header("a", "v\n"),
        Options::new().beta("b\0"),
    ] {
        refused(option);
    }
}

/// Returns the request that one call with these settings sends.
#[track_caller]
fn sent(tune: impl FnOnce(ClientBuilder) -> ClientBuilder) -> RecordedRequest {
    let server = server();
    let client = tune(builder_without_key(&server))
        .build()
        .expect("valid settings");
    client.messages().create(&request()).expect("a response");
    server.take_requests().remove(0)
}

fn values<'a>(request: &'a RecordedRequest, name: &str) -> Vec<&'a str> {
    let named = request.headers.iter().filter(|(known, _)| known == name);
    named.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn call_carries_each_api_header_once() {
    let server = server();
    let client = builder(&server).build().expect("valid settings");
    client.messages().create(&request()).expect("a response");
    client.messages().count_tokens(&request()).expect("a count");
    client
        .raw()
        .post("/v1/messages/count_tokens", &request())
        .expect("a count");
    client.raw().get("/v1/models").expect("a list");
    let user_agent = concat!("anthropic-blocking/", env!("CARGO_PKG_VERSION"));
    for request in server.requests() {
        let is_get = request.method == "GET";
        for (name, value) in [
            ("x-api-key", KEY),
            ("anthropic-version", "2023-06-01"),
            ("user-agent", user_agent),
            ("host", &server.address().to_string()),
        ] {
            assert_eq!(values(&request, name), [value], "{name}");
        }
        for name in [
            "authorization",
            "anthropic-beta",
            "transfer-encoding",
            "expect",
            "cookie",
        ] {
            assert!(values(&request, name).is_empty(), "{name}");
        }
        let accept = values(&request, "accept");
        assert!(
            accept.len() == 1 && accept[0].contains("json"),
            "{accept:?}"
        );
        if is_get {
            assert!(values(&request, "content-type").is_empty());
        } else {
            assert_eq!(values(&request, "content-type"), ["application/json"]);
            let length = request.body.len().to_string();
            assert_eq!(values(&request, "content-length"), [length]);
        }
        let telling = request
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("x-stainless"));
        assert!(!telling, "telemetry of the official clients");
    }
    assert_eq!(server.connection_count(), 1);
}

#[test]
fn exactly_one_credential_is_sent() {
    let token = sent(|builder| builder.auth_token("t"));
    assert_eq!(values(&token, "authorization"), ["Bearer t"]);
    assert!(values(&token, "x-api-key").is_empty());
    let own = sent(|builder| builder.header("Authorization", "Custom c"));
    assert_eq!(values(&own, "authorization"), ["Custom c"]);
    assert!(values(&own, "x-api-key").is_empty());
    let server = server();
    let client = builder_without_key(&server)
        .auth_token("t")
        .build()
        .expect("valid settings");
    let options = Options::new()
        .header("X-API-Key", "other")
        .expect("a valid header");
    client
        .with(options)
        .messages()
        .create(&request())
        .expect("a response");
    let other = server.take_requests().remove(0);
    assert_eq!(values(&other, "x-api-key"), ["other"]);
    assert!(values(&other, "authorization").is_empty());
}

#[test]
fn headers_are_sent_as_set() {
    let request = sent(|builder| {
        builder
            .api_key("k")
            .version("2026-10-21")
            .beta("one-2026-01-01")
            .beta("two-2026-01-01")
            .header("X-Team", "a b")
            .header("x-team", "c")
            .user_agent("mine/1")
    });
    assert_eq!(values(&request, "anthropic-version"), ["2026-10-21"]);
    assert_eq!(
        values(&request, "anthropic-beta"),
        ["one-2026-01-01,two-2026-01-01"]
    );
    assert_eq!(values(&request, "x-team"), ["c"]);
    assert_eq!(values(&request, "user-agent"), ["mine/1"]);
    let request = sent(|builder| {
        builder
            .api_key("k")
            .header("anthropic-beta", "one")
            .beta("two")
    });
    assert_eq!(values(&request, "anthropic-beta"), ["one,two"]);
    let request = sent(|builder| builder.api_key("k").header("User-Agent", "mine/2"));
    assert_eq!(values(&request, "user-agent"), ["mine/2"]);
}

#[test]
fn base_url_path_prefixes_every_path() {
    for (prefix, slash) in [("/claude", ""), ("/claude", "/"), ("/a/b", "//"), ("", "/")] {
        let server = server();
        let url = format!("{}{prefix}{slash}", server.base_url());
        let client = builder(&server)
            .base_url(url)
            .build()
            .expect("valid settings");
        server.respond_with(|request| match request.path.ends_with("count_tokens") {
            true => Reply::json(200, r#"{"input_tokens":3}"#),
            false => Reply::message("x"),
        });
        client.messages().create(&request()).expect("a response");
        client.messages().count_tokens(&request()).expect("a count");
        client.raw().get("/v1/files?limit=5").expect("a response");
        let requests = server.take_requests();
        let paths: Vec<&str> = requests.iter().map(|r| r.path.as_str()).collect();
        let with_prefix = |path: &str| format!("{prefix}{path}");
        assert_eq!(
            paths,
            [
                with_prefix("/v1/messages"),
                with_prefix("/v1/messages/count_tokens"),
                with_prefix("/v1/files"),
            ]
        );
        assert_eq!(requests[2].query.as_deref(), Some("limit=5"));
    }
}

#[test]
fn unknown_path_error_names_the_base_url() {
    let server = server();
    let advice = |prefix: &str, reply: Reply| {
        let url = format!("{}{prefix}", server.base_url());
        let client = builder(&server).base_url(url).build();
        server.push(reply);
        let client = client.expect("valid settings");
        let error = client.messages().create(&request()).expect_err("a 404");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        error.to_string()
    };
    let own = || Reply::error(404, "not_found_error", "Not found");
    let doubled = "the base URL ends with /v1, and every path begins with it";
    for reply in [
        own(),
        Reply::status(404),
        Reply::json(404, r#"{"detail":"Not Found"}"#),
    ] {
        let text = advice("/v1/", reply);
        assert!(text.contains(doubled), "{text}");
    }
    let text = advice("", Reply::json(404, r#"{"detail":"Not Found"}"#));
    assert!(
        text.contains("the response is not from the API: check the base URL"),
        "{text}"
    );
    let model = || Reply::error(404, "not_found_error", "model: claude-0");
    for prefix in ["", "/v1"] {
        let text = advice(prefix, model());
        assert!(text.contains("check the model's id"), "{text}");
    }
    let text = advice("", own());
    assert!(!text.contains("base URL"), "{text}");
}

#[test]
fn request_is_sent_as_built() {
    let full = MessageRequest::new("claude-opus-5", 500)
        .system("Be brief.")
        .user(PROMPT)
        .assistant("Yes?")
        .user("Go on.")
        .stop_sequence("END")
        .temperature(0.5)
        .field("future", json!({"x": [1, null]}));
    let expected = json!({
        "model": "claude-opus-5", "max_tokens": 500, "system": "Be brief.",
        "messages": [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Go on."},
        ],
        "stop_sequences": ["END"], "temperature": 0.5, "future": {"x": [1, null]},
    });
    for streams in [false, true] {
        let lab = Lab::with(|builder| builder.stream_underneath(streams));
        let message = lab.client.messages().create(&full).expect("a response");
        assert_eq!(message.text(), "You said: Go on.");
        assert_eq!(message.model, Model::new("claude-opus-5"));
        assert_eq!(message.stop_reason, Some(StopReason::EndTurn));
        let mut expected = expected.clone();
        if streams {
            expected["stream"] = true.into();
        }
        let sent = lab.server.take_requests().remove(0);
        assert_eq!(
            (sent.method.as_str(), sent.query.as_deref()),
            ("POST", None)
        );
        assert_eq!(sent.json(), expected);
    }
}

#[test]
fn count_tokens_sends_only_relevant_fields() {
    let lab = Lab::new();
    let request = request()
        .system("Be brief.")
        .temperature(0.5)
        .stop_sequence("END");
    lab.server.push(Reply::json(
        200,
        r#"{"input_tokens":18446744073709551615,"new":1}"#,
    ));
    assert_eq!(
        lab.client
            .messages()
            .count_tokens(&request)
            .expect("a count"),
        u64::MAX
    );
    let sent = lab.server.take_requests().remove(0);
    assert_eq!(
        (sent.method.as_str(), sent.path.as_str()),
        ("POST", "/v1/messages/count_tokens")
    );
    let expected = json!({
        "model": "claude-haiku-4-5", "system": "Be brief.",
        "messages": [{"role": "user", "content": PROMPT}],
    });
    assert_eq!(sent.json(), expected);
}

#[test]
fn raw_calls_pass_json_through() {
    let lab = Lab::new();
    let raw = lab.client.raw();
    lab.server.push_all([
        Reply::json(200, r#"{"a":[1]}"#).header("anthropic-ratelimit-requests-limit", "5"),
        Reply::json(201, "x").body([b'o', 0xff, b'k']),
        Reply::status(204),
    ]);
    let got = raw.get("/v1/files?a=%20&b=/../c").expect("a response");
    assert_eq!(got.json::<Value>().expect("JSON"), json!({"a": [1]}));
    assert_eq!(got.body, br#"{"a":[1]}"#);
    assert_eq!(
        got.request_id().map(|id| id.as_str()),
        Some("req_test_000001")
    );
    assert_eq!(
        got.rate_limits().requests.and_then(|group| group.limit),
        Some(5)
    );
    assert_eq!(got.attempts().len(), 1);
    assert_eq!(got.status(), 200);
    assert_eq!(got.header("Anthropic-Ratelimit-Requests-Limit"), Some("5"));
    assert_eq!(got.header("x-nothing"), None);
    let posted = raw
        .post("/v1/files", &json!({"b": "\u{e9}"}))
        .expect("a response");
    assert_eq!(
        (posted.status(), posted.text()),
        (201, "o\u{fffd}k".to_owned())
    );
    let error = posted.json::<Value>().expect_err("no JSON");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert_eq!(
        error.request_id().map(|id| id.as_str()),
        Some("req_test_000002")
    );
    let deleted = raw.delete("/v1/files/1").expect("a response");
    assert!(deleted.body.is_empty());
    let requests = lab.server.take_requests();
    let lines: Vec<String> = requests
        .iter()
        .map(|r| format!("{} {}", r.method, r.path))
        .collect();
    assert_eq!(
        lines,
        ["GET /v1/files", "POST /v1/files", "DELETE /v1/files/1"]
    );
    assert_eq!(requests[0].query.as_deref(), Some("a=%20&b=/../c"));
    assert_eq!(requests[1].json(), json!({"b": "\u{e9}"}));
    assert!(requests[0].body.is_empty() && requests[2].body.is_empty());
}

#[test]
fn raw_bytes_are_sent_with_their_content_type() {
    let lab = Lab::new();
    lab.server
        .push_all([Reply::status(500), Reply::json(200, "{}")]);
    let raw = lab.client.raw();
    let bytes = [0, 0xff, b'\r', b'\n'];
    raw.post_bytes("/v1/files", "multipart/form-data; boundary=b", &bytes)
        .expect("a response");
    let requests = lab.server.take_requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(request.body, bytes);
        let types = values(request, "content-type");
        assert_eq!(types, ["multipart/form-data; boundary=b"]);
    }
    let error = raw
        .post_bytes("/v1/files", "a\nb", &bytes)
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(lab.client.totals().all.calls, 1);
}

#[test]
fn invalid_paths_are_refused_unsent() {
    let lab = Lab::new();
    for path in [
        "",
        "v1/files",
        "http://other.example/v1",
        "@other.example/",
        ":80/",
        "/a b",
        "/a\n",
        "/a\0",
        "/caf\u{e9}",
        "/a#b",
        "/a<b",
        "/a`b",
        "/a?b=<c>",
        "?a=b",
        " /v1",
    ] {
        for error in [
            lab.client.raw().get(path).expect_err(path),
            lab.client.raw().post(path, &1).expect_err(path),
            lab.client.raw().delete(path).expect_err(path),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{path:?}");
            let text = error.to_string();
            let words = "is no path: it must begin with / and be percent-encoded";
            assert!(text.ends_with(words), "{text}");
        }
    }
    assert_eq!(lab.server.connection_count(), 0);
    // This looks like another host, but is a path on the same host.
    lab.server.push(Reply::json(200, "1"));
    lab.client
        .raw()
        .get("//other.example/v1")
        .expect("a response");
    assert_eq!(lab.server.take_requests()[0].path, "//other.example/v1");
}

#[test]
fn unstreamed_call_over_ten_minutes_is_refused() {
    let long = |max_tokens| MessageRequest::new("claude-opus-5", max_tokens).user("Write a book.");
    let lab = Lab::with(|builder| builder.stream_underneath(false));
    lab.client
        .messages()
        .create(&long(21_333))
        .expect("a response");
    let error = lab
        .client
        .messages()
        .create(&long(21_334))
        .expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(
        error.to_string(),
        "POST /v1/messages: a response of 21334 tokens in one piece may take over ten minutes; let \
         the client stream underneath, set a timeout, or lower max_tokens"
    );
    assert_eq!(lab.server.request_count(), 1);
    lab.client
        .messages()
        .count_tokens(&long(128_000))
        .expect("a count");
    let patient = lab.client.with(Options::new().timeout(seconds(3_600)));
    patient
        .messages()
        .create(&long(128_000))
        .expect("a response");
    let patient = Lab::with(|builder| builder.stream_underneath(false).timeout(seconds(3_600)));
    patient
        .client
        .messages()
        .create(&long(128_000))
        .expect("a response");
    let streaming = Lab::new();
    streaming
        .client
        .messages()
        .create(&long(128_000))
        .expect("a response");
}

#[test]
fn explicit_proxy_gets_a_connect_request() {
    let (proxy, server) = (server(), server());
    proxy.push(Reply::status(200));
    let password = "http://user:password@";
    let url = proxy.base_url().replace("http://", password);
    let client = builder(&server).proxy(url).build().expect("valid settings");
    client.messages().create(&request()).expect("a response");
    assert_eq!((proxy.request_count(), server.request_count()), (2, 0));
    let requests = proxy.take_requests();
    assert_eq!(requests[0].method, "CONNECT");
    assert_eq!(
        values(&requests[0], "proxy-authorization"),
        ["Basic dXNlcjpwYXNzd29yZA=="]
    );
    assert!(values(&requests[0], "x-api-key").is_empty());
    assert_eq!(values(&requests[1], "x-api-key"), [KEY]);
    assert!(values(&requests[1], "proxy-authorization").is_empty());
    assert_eq!(requests[0].connection, requests[1].connection);
}

#[test]
fn connection_error_names_the_proxy() {
    let through = |proxy: String| {
        let builder = Client::builder().api_key(KEY);
        let builder = builder.base_url("https://api.example").proxy(proxy);
        let builder = builder.retry(RetryPolicy::none());
        let client = builder.build().expect("valid settings");
        client.raw().post("/v1/x", &1).expect_err("no way through")
    };
    let port = closed_port();
    let error = through(format!("http://user:password@127.0.0.1:{port}"));
    let proxy = format!("POST /v1/x to api.example through the proxy 127.0.0.1:{port}");
    let system = TcpStream::connect(("127.0.0.1", port)).expect_err("a closed port");
    assert_eq!(
        error.to_string(),
        format!("{proxy}: connecting failed: {system}")
    );
    let proxy = server();
    proxy.push(Reply::status(407));
    let error = through(proxy.base_url().to_owned());
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = format!(
        "POST /v1/x to api.example through the proxy {}: the proxy refuses to connect (check its \
         URL, user name and password): CONNECT proxy failed: proxy server responded 407/407",
        proxy.address()
    );
    assert_eq!(error.to_string(), text);
    // These failures may be temporary.
    for status in [408, 429, 502, 503] {
        proxy.push(Reply::status(status));
        let error = through(proxy.base_url().to_owned());
        assert_eq!(error.kind(), ErrorKind::Connection, "{status}");
        assert!(error.is_retryable(), "{status}");
    }
}

/// The environment of a process cannot be changed safely while it has threads, so this runs a
/// child process: `child_that_uses_the_environment`.
#[track_caller]
fn in_environment(server: &TestServer, variables: &[(&str, &str)]) -> bool {
    output_in_environment(server, variables).is_ok()
}

/// Like `in_environment`, but returns the output of a child that failed.
#[track_caller]
fn output_in_environment(server: &TestServer, variables: &[(&str, &str)]) -> Result<(), String> {
    let mut command = child::command("client::child_that_uses_the_environment");
    for name in ["API_KEY", "AUTH_TOKEN", "CUSTOM_HEADERS"] {
        command.env_remove(format!("ANTHROPIC_{name}"));
    }
    for name in ["HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
        .env(CHILD, "1")
        .env("ANTHROPIC_BASE_URL", format!("{}/", server.base_url()));
    let output = command
        .envs(variables.iter().copied())
        .output()
        .expect("a process");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stdout).into_owned()),
    }
}

/// Set only by the parent test, whose server the child calls, so that no real key is ever used.
const CHILD: &str = "ANTHROPIC_BLOCKING_TEST_CHILD";

#[test]
#[ignore = "the other half of environment_variables_are_followed"]
fn child_that_uses_the_environment() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let client = Client::from_env().expect("a good environment");
    client.messages().create(&request()).expect("a response");
}

#[test]
fn environment_variables_are_followed() {
    let server = server();
    let headers = "X-Team: a:b\n\nx-other:c";
    let with_key = [
        ("ANTHROPIC_API_KEY", " key\n"),
        ("ANTHROPIC_AUTH_TOKEN", "token"),
        ("ANTHROPIC_CUSTOM_HEADERS", headers),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
        ("ALL_PROXY", "http://127.0.0.1:9"),
    ];
    assert!(in_environment(&server, &with_key));
    assert!(in_environment(
        &server,
        &[("ANTHROPIC_API_KEY", ""), ("ANTHROPIC_AUTH_TOKEN", "token")]
    ));
    assert!(!in_environment(&server, &[]), "without a key");
    let requests = server.take_requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(values(&requests[0], "x-api-key"), ["key"]);
    assert_eq!(values(&requests[0], "x-team"), ["a:b"]);
    assert_eq!(values(&requests[0], "x-other"), ["c"]);
    assert!(values(&requests[0], "authorization").is_empty());
    assert_eq!(values(&requests[1], "authorization"), ["Bearer token"]);
    assert!(values(&requests[1], "x-api-key").is_empty());
}

#[test]
fn environment_proxy_is_trimmed_or_named_as_invalid() {
    let (proxy, target) = (server(), server());
    let elsewhere = ("ANTHROPIC_BASE_URL", "https://api.example");
    let key = ("ANTHROPIC_API_KEY", "key");
    let url = format!(" {}\n", proxy.base_url());
    proxy.respond_with(|_| Reply::status(407));
    let refused = output_in_environment(&target, &[elsewhere, key, ("HTTPS_PROXY", &url)]);
    let refused = refused.expect_err("a proxy that refuses");
    assert!(
        refused.contains("the proxy refuses to connect"),
        "{refused}"
    );
    assert_eq!(proxy.take_requests()[0].method, "CONNECT");
    let wrong = [elsewhere, key, ("https_proxy", "ftp://proxy.example")];
    let wrong = output_in_environment(&target, &wrong).expect_err("no proxy");
    assert!(
        wrong.contains("the proxy's URL in https_proxy is invalid"),
        "{wrong}"
    );
}
