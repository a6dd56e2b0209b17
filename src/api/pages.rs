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
/// Sends nothing before the first `next`. A `next` that needs another page requests it with `GET`,
/// and blocks like any call; the others return at once. An item that cannot be read is an error of
/// its own, and the next item follows. If a page cannot be fetched, its error is the last item.
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
#[must_use = "nothing is sent before the first item is requested"]
pub struct Pages<'a, T> {
    client: &'a Client,
    /// Path and query of the list.
    path: String,
    limit: Option<u32>,
    paging: Paging,
    /// Where the next page begins; `None` for the beginning of the list.
    cursor: Option<String>,
    /// The items of the current page that were not handed out yet.
    items: vec::IntoIter<Value>,
    meta: ResponseMeta,
    /// How many pages in a row had no item.
    empty_pages: usize,
    /// Whether there is no page after the current one.
    is_last: bool,
    item: PhantomData<fn() -> T>,
}

/// The query parameter that names the next page. A list may switch to the one that its response
/// shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paging {
    /// The id of the last item.
    AfterId,
    /// The id of the first item.
    BeforeId,
    /// The token that came with the page.
    Token,
}

impl Paging {
    fn parameter(self) -> &'static str {
        match self {
            Paging::AfterId => "after_id",
            Paging::BeforeId => "before_id",
            Paging::Token => "page",
        }
    }
}

/// A page of a list, whether paged by ids or by tokens.
#[derive(Deserialize)]
struct ListPage {
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
    /// A list that is paged by ids.
    pub(crate) fn by_id(client: &'a Client, path: impl Into<String>) -> Pages<'a, T> {
        Pages {
            client,
            path: path.into(),
            limit: None,
            paging: Paging::AfterId,
            cursor: None,
            items: Vec::new().into_iter(),
            meta: ResponseMeta::default(),
            empty_pages: 0,
            is_last: false,
            item: PhantomData,
        }
    }

    /// A list that is paged by tokens.
    pub(crate) fn by_token(client: &'a Client, path: impl Into<String>) -> Pages<'a, T> {
        Pages {
            paging: Paging::Token,
            ..Pages::by_id(client, path)
        }
    }

    /// Sets the maximum number of items in a page, by default the server's own, usually 20. The
    /// items are the same; larger pages need fewer requests.
    pub fn limit(mut self, items: u32) -> Pages<'a, T> {
        self.limit = Some(items);
        self
    }

    /// Starts after the item with this id. The lists of models and batches begin with the newest
    /// item: what follows is older.
    ///
    /// ```
    /// # fn older(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// for batch in client.batches().list().after("msgbatch_01Example").limit(100) {
    ///     println!("{}", batch?.id);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn after(mut self, id: impl Into<String>) -> Pages<'a, T> {
        (self.paging, self.cursor) = (Paging::AfterId, Some(id.into()));
        self
    }

    /// Lists the items before the item with this id: the nearest page first, and the items of a
    /// page in the order of the list.
    pub fn before(mut self, id: impl Into<String>) -> Pages<'a, T> {
        (self.paging, self.cursor) = (Paging::BeforeId, Some(id.into()));
        self
    }

    /// Requests the next page, and blocks until its items are there.
    fn fetch_page(&mut self) -> Result<()> {
        // After an error there is no other page.
        self.is_last = true;
        let path = self.next_path();
        check_path("GET", &path)?;
        let (page, meta) =
            self.client
                .request_json::<ListPage>("GET", &path, "a page of a list")?;
        self.meta = meta;
        // An empty page ends a list that is paged by ids, but not one that is paged by tokens.
        let has_more = page.has_more == Some(true) && !page.data.is_empty();
        let token = page.next_page.filter(|token| !token.is_empty());
        let (paging, next) = match (self.paging, token) {
            (Paging::BeforeId, _) => (Paging::BeforeId, page.first_id.filter(|_| has_more)),
            (_, Some(token)) => (Paging::Token, Some(token)),
            (_, None) => (Paging::AfterId, page.last_id.filter(|_| has_more)),
        };
        let next = next.filter(|cursor| !cursor.is_empty());
        if next.is_some() && next == self.cursor {
            return Err(self.unreadable("that of a new page, but of the one before"));
        }
        self.empty_pages = match page.data.is_empty() {
            true => self.empty_pages + 1,
            false => 0,
        };
        if next.is_some() && self.empty_pages > MAX_EMPTY_PAGES {
            return Err(self.unreadable("an item, after many pages without any"));
        }
        self.items = page.data.into_iter();
        self.is_last = next.is_none();
        (self.paging, self.cursor) = (paging, next);
        Ok(())
    }

    /// Path and query of the next page. The cursor and the limit replace those of the caller's
    /// path.
    fn next_path(&self) -> String {
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        let cursor = self.cursor.clone();
        let cursor = cursor.map(|cursor| (self.paging.parameter(), cursor));
        let mut path = without_parameters(&self.path, |name| match name {
            "limit" => limit.is_some(),
            "after_id" | "before_id" | "page" => cursor.is_some(),
            _ => false,
        });
        for (name, value) in limit.into_iter().chain(cursor) {
            let separator = if path.contains('?') { '&' } else { '?' };
            path = format!("{path}{separator}{name}={}", percent_encode(&value));
        }
        path
    }

    fn unreadable(&self, expected: &'static str) -> Error {
        self.error(Cause::unreadable(expected, None))
    }

    fn error(&self, cause: Cause) -> Error {
        let path = self.path.split('?').next().unwrap_or_default();
        Error::new(ErrorKind::Decode, format!("GET {path}"), cause)
            .with_response(self.meta.request_id.clone(), self.meta.rate_limits.clone())
            .with_attempts(self.meta.attempts.clone())
    }
}

impl<T: DeserializeOwned> Iterator for Pages<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(item) = self.items.next() {
                let parsed = T::deserialize(&item).map_err(|error| {
                    let expected = "a list of the expected items";
                    self.error(Cause::unreadable(expected, Some(json_error(&error))))
                });
                return Some(parsed);
            }
            if self.is_last {
                return None;
            }
            if let Err(error) = self.fetch_page() {
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
            .field("paging", &self.paging)
            .field("is_last", &self.is_last)
            .finish_non_exhaustive()
    }
}

/// Removes from a path the parameters of its query whose names are `unwanted`.
fn without_parameters(path: &str, unwanted: impl Fn(&str) -> bool) -> String {
    let Some((path, query)) = path.split_once('?') else {
        return path.to_owned();
    };
    let is_wanted = |part: &&str| part.split('=').next().is_some_and(|name| !unwanted(name));
    let query: Vec<&str> = query.split('&').filter(is_wanted).collect();
    match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", query.join("&")),
    }
}

/// How many pages in a row may have no item before the list counts as endless.
const MAX_EMPTY_PAGES: usize = 100;
