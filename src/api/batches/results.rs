//! The results of a batch: a download of any size, read line by line in constant memory.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;
use std::time::Duration;

use log::info;

use super::endpoints::{self, PATH};
use crate::api::endpoint::path_with_id;
use crate::call::classify::{FailureDetails, classify};
use crate::call::response::{Failure, cut};
use crate::call::retry::{Decision, RetryState};
use crate::call::{Call, LOG};
use crate::client::{Client, Options};
use crate::clock::lock;
use crate::error::{Cause, Error, ErrorKind, Result, display_duration, json_error, sanitize};
use crate::http::{Response, ResponseBody};
use crate::types::digest::Digest;
use crate::types::{BatchEntry, Delivery, MessageBatch, ResponseMeta, parse_response};

/// The results of a batch: an iterator over its lines, in no order; from
/// [`Batches::results`](crate::Batches::results).
///
/// Each `next` blocks until a line arrives; without any data for as long as the client's idle
/// timeout, the download counts as broken. Only the current line is in memory. A broken download is
/// started again and continues after the last line that was handed out; the client's
/// [`RetryPolicy`](crate::RetryPolicy) says how often without a new line in between. A line that
/// cannot be read is an error of its own, and the next line follows; any other error is the last
/// item. Results that end before as many lines as the batch counts are such an error.
///
/// The client's [`deadline`](crate::ClientBuilder::deadline) holds for each download, from its
/// request to its last line, and includes the time that the caller spends between two lines.
///
/// ```
/// use anthropic_blocking::{BatchResults, Result};
///
/// fn failures(results: BatchResults) -> Result<Vec<String>> {
///     let failed = results.filter(|entry| {
///         entry.as_ref().map_or(true, |entry| entry.result.message().is_none())
///     });
///     failed.map(|entry| Ok(entry?.custom_id)).collect()
/// }
/// ```
#[must_use = "the iterator downloads the results as it advances"]
pub struct BatchResults {
    client: Client,
    path: String,
    /// `None` once the results have ended or failed.
    body: Option<ResponseBody>,
    /// Whether the response said where its body ends.
    is_framed: bool,
    buffer: Vec<u8>,
    /// Where in `buffer` the bytes begin that belong to no line yet.
    unread: usize,
    /// How many of the unread bytes are known to hold no end of a line.
    searched: usize,
    /// The size in bytes of all lines read so far, with their ends, and their digest.
    bytes_read: u64,
    digest: Digest,
    /// How many lines were handed out.
    lines: u64,
    /// How many lines the batch counts; 0 if it does not say.
    expected: u64,
    /// The retries since the last line; `None` if there were none.
    retry_state: Option<RetryState>,
    meta: ResponseMeta,
}

/// A download that was started, without the lines that were read before.
struct Download {
    body: ResponseBody,
    is_framed: bool,
    /// The first bytes of the next lines.
    unread: Vec<u8>,
}

impl BatchResults {
    /// Fetches the batch, to know how many results there must be, and starts the download.
    pub(super) fn fetch(client: &Client, id: &str) -> Result<BatchResults> {
        let batch = endpoints::get(client, id)?;
        let path = format!("{}/results", path_with_id("GET", PATH, id)?);
        if !batch.is_ended() {
            let what = format!(
                "{} has not ended, and has no results yet",
                sanitize(id, 100)
            );
            return Err(
                Error::rejected(format!("GET {path}"), what).with_advice("wait for it first")
            );
        }
        let Some(url) = &batch.results_url else {
            let what = format!("{} has no results any more", sanitize(id, 100));
            let (kind, cause) = (ErrorKind::NotFound, Cause::Rejected(what.into()));
            return Err(Error::new(kind, format!("GET {path}"), cause));
        };
        let path = path_below_base(client, url).map_or(path, str::to_owned);
        BatchResults::start(client, &batch, path)
    }

    fn start(client: &Client, batch: &MessageBatch, path: String) -> Result<BatchResults> {
        // The official clients send this header here.
        let options = Options::new().header("accept", "application/binary")?;
        let mut results = BatchResults {
            client: client.with(options),
            path,
            body: None,
            is_framed: false,
            buffer: Vec::new(),
            unread: 0,
            searched: 0,
            bytes_read: 0,
            digest: Digest::new(),
            lines: 0,
            expected: batch.request_counts.total(),
            retry_state: None,
            meta: ResponseMeta::default(),
        };
        results.start_download()?;
        Ok(results)
    }

    /// Reads the next line that is not blank, and returns its range in the buffer.
    pub(super) fn next_line(&mut self) -> Option<Result<Range<usize>>> {
        loop {
            if let Some(line) = self.take_line() {
                if !line.is_empty() {
                    return Some(Ok(line));
                }
                continue;
            }
            let outcome = match &mut self.body {
                None => return None,
                Some(_) if self.buffer.len() - self.unread > MAX_LINE => Err(Failure {
                    delivery: Delivery::Responded,
                    ..Failure::from(Cause::Decode {
                        expected: "in lines of a size to be read",
                        excerpt: String::new(),
                        source: None,
                    })
                }),
                Some(body) => {
                    self.buffer.drain(..self.unread);
                    self.unread = 0;
                    let end = self.buffer.len();
                    self.buffer.resize(end + READ_SIZE, 0);
                    let read = body.read(&mut self.buffer[end..]);
                    let count = read.as_ref().copied().unwrap_or(0);
                    self.buffer.truncate(end + count);
                    match read {
                        Ok(0) => match self.end_download() {
                            Ok(line) => return line.map(Ok),
                            Err(failure) => Err(failure),
                        },
                        Ok(_) => Ok(()),
                        Err(fault) => Err(fault.into()),
                    }
                }
            };
            if let Err(failure) = outcome {
                if let Err(error) = self.retry_or_fail(failure) {
                    self.body = None;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Returns the bytes of a line that [`next_line`](BatchResults::next_line) found.
    pub(super) fn line(&self, line: Range<usize>) -> &[u8] {
        &self.buffer[line]
    }

    /// Parses a line, or says what is wrong with the line.
    pub(super) fn parse(&self, line: Range<usize>) -> Result<BatchEntry> {
        parse_response(self.line(line)).map_err(|error| self.unreadable_line(&error))
    }

    /// The error for the current line if it is no result.
    pub(super) fn unreadable_line(&self, error: &serde_json::Error) -> Error {
        self.error(
            ErrorKind::Decode,
            Cause::Unusable {
                what: format!("line {} is no result of a batch", self.lines).into(),
                source: json_error(error),
            },
        )
    }

    pub(super) fn error(&self, kind: ErrorKind, cause: Cause) -> Error {
        Error::new(kind, self.action(), cause)
            .with_response(self.meta.request_id.clone(), self.meta.rate_limits.clone())
            .with_attempts(self.meta.attempts.clone())
    }

    /// What the download does, for errors and log lines. Without the query, which may hold a
    /// signature.
    fn action(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("GET {}", sanitize(path, 200))
    }

    /// Takes a whole line out of the buffer; an empty range for a blank line.
    fn take_line(&mut self) -> Option<Range<usize>> {
        let from = self.unread + self.searched;
        let Some(end) = self.buffer[from..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len() - self.unread;
            return None;
        };
        let end = from + end;
        let line = self.unread..end;
        self.digest.add(&self.buffer[self.unread..=end]);
        self.bytes_read += (end + 1 - self.unread) as u64;
        self.unread = end + 1;
        self.searched = 0;
        Some(self.count_unless_blank(line))
    }

    fn count_unless_blank(&mut self, line: Range<usize>) -> Range<usize> {
        if self.buffer[line.clone()].trim_ascii().is_empty() {
            return line.start..line.start;
        }
        self.lines += 1;
        self.retry_state = None;
        line
    }

    /// Handles the end of the body: returns the last line if it lacks its line end, or the failure
    /// if the results cannot be complete.
    fn end_download(&mut self) -> Result<Option<Range<usize>>, Failure> {
        let rest = self.unread..self.buffer.len();
        let last = &self.buffer[rest.clone()];
        let is_cut = !last.trim_ascii().is_empty()
            && serde_json::from_slice::<serde::de::IgnoredAny>(last)
                .is_err_and(|error| error.is_eof());
        let lines = self.lines + u64::from(!last.trim_ascii().is_empty());
        if is_cut || (lines < self.expected && !self.is_framed) {
            return Err(cut());
        }
        self.unread = rest.end;
        self.searched = 0;
        let line = self.count_unless_blank(rest);
        if self.lines < self.expected && line.is_empty() {
            return Err(self.too_few_lines());
        }
        // With a last line but too few lines the body stays: the next call hands out the error.
        if self.lines >= self.expected {
            self.body = None;
        }
        Ok((!line.is_empty()).then_some(line))
    }

    fn too_few_lines(&self) -> Failure {
        let (lines, expected) = (self.lines, self.expected);
        let what = format!("the results end after {lines} of {expected}");
        Failure {
            delivery: Delivery::Responded,
            ..Failure::from(Cause::Rejected(what.into()))
        }
    }

    /// After a failure: sleeps and starts the download again, or returns the final error.
    ///
    /// The retries of a call end when the response has begun; a download breaks after that.
    fn retry_or_fail(&mut self, failure: Failure) -> Result<()> {
        let core = self.client.core();
        let classification = classify(&FailureDetails {
            cause: &failure.cause,
            delivery: failure.delivery,
            repeatable: true,
            retry_after: None,
            should_retry: None,
        });
        if core.sleeper.is_stopped() {
            return Err(self.error(ErrorKind::Shutdown, Cause::Shutdown));
        }
        let kind = match failure.cause {
            Cause::Rejected(_) => ErrorKind::Decode,
            _ => classification.kind,
        };
        let policy = self.client.settings().retry;
        let retry_state = self.retry_state.get_or_insert_with(|| {
            let rng = lock(&core.rng).fork();
            RetryState::new(policy, rng)
        });
        let decision = retry_state.decide(classification.action, None, false, || {
            lock(&core.retries).take_retry(core.sleeper.clock().now())
        });
        let wait = match decision {
            Decision::Again(wait) => wait,
            // Only for calls that wait in the budget's queue.
            Decision::Queue => Duration::ZERO,
            Decision::GiveUp(reason) => {
                let error = self.error(kind, failure.cause);
                return Err(error.with_classification(
                    classification.is_retryable(),
                    classification.advice,
                    reason,
                ));
            }
        };
        let (what, lines) = (failure.cause.brief(), self.lines);
        info!(
            target: LOG,
            "{}: {what} after {lines} lines: retrying in {}",
            self.action(),
            display_duration(wait)
        );
        if core.sleeper.sleep(wait).is_err() {
            return Err(self.error(ErrorKind::Shutdown, Cause::Shutdown));
        }
        self.start_download()
    }

    /// Requests the results, and skips the lines that were read before.
    fn start_download(&mut self) -> Result<()> {
        self.body = None;
        let client = self.client.clone();
        let call = Call {
            repeatable: true,
            ..client.streaming_call("GET", &self.path, None)
        };
        let (bytes_read, digest) = (self.bytes_read, &self.digest);
        let (download, meta) = call.ask(|response| skip(response, bytes_read, digest))?;
        self.body = Some(download.body);
        self.is_framed = download.is_framed;
        self.buffer = download.unread;
        (self.unread, self.searched) = (0, 0);
        self.meta = meta;
        Ok(())
    }
}

/// Skips the first `count` bytes of a download, which must have the digest of the bytes that were
/// read before.
fn skip(response: &mut Response, count: u64, expected: &Digest) -> Result<Download, Failure> {
    let is_framed = response.is_framed();
    let mut left = count;
    let mut digest = Digest::new();
    let mut buffer = Vec::new();
    while left > 0 {
        buffer.resize(READ_SIZE, 0);
        let count = response.body.read(&mut buffer)?;
        if count == 0 {
            return Err(cut());
        }
        buffer.truncate(count);
        let skipped = usize::try_from(left).map_or(count, |left| left.min(count));
        digest.add(&buffer[..skipped]);
        left -= skipped as u64;
        if left == 0 {
            buffer.drain(..skipped);
        }
    }
    if count > 0 && digest != *expected {
        return Err(Failure {
            delivery: Delivery::Responded,
            ..Failure::from(Cause::Decode {
                expected: "what the same download gave before it broke",
                excerpt: String::new(),
                source: None,
            })
        });
    }
    Ok(Download {
        body: response.take_body(),
        is_framed,
        unread: buffer,
    })
}

/// Returns the path of a URL that is below the client's base URL; `None` for any other URL.
fn path_below_base<'u>(client: &Client, url: &'u str) -> Option<&'u str> {
    let path = url.strip_prefix(client.core().base.as_str())?;
    let is_clean = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    (path.starts_with('/') && is_clean).then_some(path)
}

impl Iterator for BatchResults {
    type Item = Result<BatchEntry>;

    fn next(&mut self) -> Option<Result<BatchEntry>> {
        let line = self.next_line()?;
        Some(line.and_then(|line| self.parse(line)))
    }
}

impl FusedIterator for BatchResults {}

impl fmt::Debug for BatchResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchResults")
            .field("action", &self.action())
            .field("lines", &self.lines)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

/// How many bytes are read at a time.
const READ_SIZE: usize = 64 << 10;

/// The maximum size of a line in bytes: 64 MiB, much more than any message.
const MAX_LINE: usize = 64 << 20;
