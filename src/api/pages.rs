//! Lists that come page by page, as iterators over their items.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::vec;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::endpoint::{check_path, percent_encode};
use crate::client::Client;
use crate::error::{Cause, Error, ErrorKind, Result, json_error};
use crate::types::ResponseMeta;

/// A list that comes page by page: an iterator over its items.
///
/// Nothing is sent before the first `next`. A `next` that needs another page blocks for it, as any
/// call does. An item that cannot be read is an error of its own, and the next one follows; after a
/// page that could not be had there is nothing more.
///
/// ```no_run
/// use anthropic_blocking::Client;
///
/// let client = Client::from_env()?;
/// for model in client.models().list() {
///     println!("{}", model?.id);
/// }
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
#[must_use = "nothing is asked for before the first item is"]
pub struct Pages<'a, T> {
    client: &'a Client,
    /// Path and query.
    path: String,
    limit: Option<u32>,
    turn: Turn,
    cursor: Option<String>,
    page: vec::IntoIter<Value>,
    meta: ResponseMeta,
    /// Pages without any item, in a row.
    empty: usize,
    is_over: bool,
    items: PhantomData<fn() -> T>,
}

/// How the next page is asked for; a page shows which of the ways its list knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// By the id of the last item.
    After,
    /// By the id of the first item.
    Before,
    /// By the token that came with the page.
    Token,
}

impl Turn {
    fn name(self) -> &'static str {
        match self {
            Turn::After => "after_id",
            Turn::Before => "before_id",
            Turn::Token => "page",
        }
    }
}

/// One page, of either kind.
#[derive(Deserialize)]
struct Page {
    data: Vec<Value>,
    #[serde(default)]
    has_more: Option<bool>,
    #[serde(default)]
    first_id: Option<String>,
    #[serde(default)]
    last_id: Option<String>,
    #[serde(default)]
    next_page: Option<String>,
}

impl<'a, T> Pages<'a, T> {
    /// A list whose pages are turned by ids.
    pub(crate) fn by_id(client: &'a Client, path: impl Into<String>) -> Pages<'a, T> {
        Pages {
            client,
            path: path.into(),
            limit: None,
            turn: Turn::After,
            cursor: None,
            page: Vec::new().into_iter(),
            meta: ResponseMeta::default(),
            empty: 0,
            is_over: false,
            items: PhantomData,
        }
    }

    /// A list whose pages are turned by tokens.
    pub(crate) fn by_token(client: &'a Client, path: impl Into<String>) -> Pages<'a, T> {
        Pages {
            turn: Turn::Token,
            ..Pages::by_id(client, path)
        }
    }

    /// Sets how many items a page has at most, by default what the server takes, usually 20. The
    /// list is the same; fewer pages are fewer requests.
    ///
    /// ```
    /// use anthropic_blocking::{Client, Result};
    ///
    /// # fn count(client: &Client) -> Result<usize> {
    /// let mut ids = client.models().list().limit(1000).map(|model| Ok(model?.id));
    /// ids.try_fold(0, |count, id: Result<_>| id.map(|_| count + 1))
    /// # }
    /// ```
    pub fn limit(mut self, items: u32) -> Pages<'a, T> {
        self.limit = Some(items);
        self
    }

    /// Begins after the item with this id. Lists of models and batches begin with the newest item,
    /// so that these are the older ones.
    ///
    /// ```
    /// # fn older(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// for batch in client.batches().list().after("msgbatch_01Example").limit(100) {
    ///     println!("{}", batch?.id);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn after(mut self, id: impl Into<String>) -> Pages<'a, T> {
        (self.turn, self.cursor) = (Turn::After, Some(id.into()));
        self
    }

    /// Takes the pages before the item with this id, the nearest page first; within a page the
    /// items stand as in the list.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Lima?");
    /// # let create = || client.batches().create([("lima", &request)]);
    /// # let known = create()?;
    /// # let since = create()?;
    /// // What others have created since this program looked.
    /// for batch in client.batches().list().before(&known.id) {
    ///     println!("{}", batch?.id);
    /// }
    /// # let ids = client.batches().list().before(&known.id).map(|batch| Ok(batch?.id));
    /// # assert_eq!(ids.collect::<anthropic_blocking::Result<Vec<_>>>()?, [since.id]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn before(mut self, id: impl Into<String>) -> Pages<'a, T> {
        (self.turn, self.cursor) = (Turn::Before, Some(id.into()));
        self
    }

    /// Asks for the next page; `None` once there is none.
    fn turn(&mut self) -> Option<Result<()>> {
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        let cursor = self.cursor.clone().map(|cursor| (self.turn.name(), cursor));
        let mut path = without(&self.path, |name| match name {
            "limit" => limit.is_some(),
            "after_id" | "before_id" | "page" => cursor.is_some(),
            _ => false,
        });
        for (name, value) in limit.into_iter().chain(cursor) {
            let separator = if path.contains('?') { '&' } else { '?' };
            path = format!("{path}{separator}{name}={}", percent_encode(&value));
        }
        self.is_over = true;
        if let Err(error) = check_path("GET", &path) {
            return Some(Err(error));
        }
        let page: Page = match self.client.request_json("GET", &path, "a page of a list") {
            Ok((page, meta)) => {
                self.meta = meta;
                page
            }
            Err(error) => return Some(Err(error)),
        };
        // An empty page ends a list of ids, and not one of tokens.
        let has_more = page.has_more == Some(true) && !page.data.is_empty();
        let token = page.next_page.filter(|token| !token.is_empty());
        let (turn, next) = match (self.turn, token) {
            (Turn::Before, _) => (Turn::Before, page.first_id.filter(|_| has_more)),
            (_, Some(token)) => (Turn::Token, Some(token)),
            (_, None) => (Turn::After, page.last_id.filter(|_| has_more)),
        };
        let next = next.filter(|cursor| !cursor.is_empty());
        if next.is_some() && next == self.cursor {
            return Some(Err(
                self.unreadable("that of a new page, but of the one before")
            ));
        }
        self.empty = if page.data.is_empty() {
            self.empty + 1
        } else {
            0
        };
        if next.is_some() && self.empty > MOST_EMPTY {
            return Some(Err(self.unreadable("an item, after many pages without any")));
        }
        self.page = page.data.into_iter();
        self.is_over = next.is_none();
        (self.turn, self.cursor) = (turn, next);
        Some(Ok(()))
    }

    fn unreadable(&self, expected: &'static str) -> Error {
        let cause = Cause::unreadable(expected, None);
        self.error(cause)
    }

    fn error(&self, cause: Cause) -> Error {
        let path = self.path.split('?').next().unwrap_or_default();
        Error::new(ErrorKind::Decode, format!("GET {path}"), cause)
            .with_answer(self.meta.request_id.clone(), self.meta.rate_limits.clone())
            .with_attempts(self.meta.attempts.clone())
    }
}

impl<T: DeserializeOwned> Iterator for Pages<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(item) = self.page.next() {
                let read = T::deserialize(&item).map_err(|error| {
                    let expected = "a list of the expected items";
                    self.error(Cause::unreadable(expected, Some(json_error(&error))))
                });
                return Some(read);
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.turn()? {
                return Some(Err(error));
            }
        }
    }
}

impl<T: DeserializeOwned> FusedIterator for Pages<'_, T> {}

impl<T> fmt::Debug for Pages<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("path", &self.path)
            .field("turn", &self.turn)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

/// A path less those parts of its query whose names are these: a page has only one place in a list.
fn without(path: &str, is_moot: impl Fn(&str) -> bool) -> String {
    let Some((path, query)) = path.split_once('?') else {
        return path.to_owned();
    };
    let name = |part: &&str| part.split('=').next().is_some_and(|name| !is_moot(name));
    let query: Vec<&str> = query.split('&').filter(name).collect();
    match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", query.join("&")),
    }
}

/// A list goes in circles that has so many pages without any item in a row.
const MOST_EMPTY: usize = 100;
