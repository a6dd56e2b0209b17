//! Downloads the results of a batch, and reads them line by line.
//!
//! A download may have any size, but only the current line is in memory. A broken download is
//! started again from its first byte, and continues after the last line that was returned.

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
use crate::http::{Fault, Response, ResponseBody};
use crate::types::digest::Digest;
use crate::types::{BatchEntry, MessageBatch, ResponseMeta, parse_response};

/// An iterator over the results of a batch, which come in any order; returned by
/// [`Batches::results`](crate::Batches::results).
///
/// Each `next` blocks until a line arrives. A download that brings no data during the client's idle
/// timeout counts as broken. Only the current line is in memory. A broken download is started again,
/// and continues after the last line that was returned; the client's
/// [`RetryPolicy`](crate::RetryPolicy) limits the retries between two lines.
///
/// A line that cannot be read is an error, after which the next line follows. Any other error is the
/// last item, such as the error for results that end with fewer lines than the batch has requests.
///
/// The client's [`deadline`](crate::ClientBuilder::deadline) applies to each download, from its
/// request to its last line, and includes the time that the caller spends between two lines.
///
/// ```
/// use anthropic_blocking::{BatchResults, Result};
///
/// /// Returns the ids of the requests without a message, or the first error of the download.
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
    /// Whether the response said where its body ends. If not, an end may be a broken connection.
    is_framed: bool,
    buffer: LineBuffer,
    /// The size in bytes of all lines read so far, with their line ends.
    bytes_read: u64,
    /// The digest of these bytes: a repeated download must begin with the same bytes.
    digest: Digest,
    /// The number of lines returned, without blank lines.
    lines: u64,
    /// The number of lines that the batch must have; 0 if the batch does not say.
    expected_lines: u64,
    /// The retries since the last line; `None` if there were none.
    retry_state: Option<RetryState>,
    /// The metadata of the current download's response.
    meta: ResponseMeta,
}

impl BatchResults {
    /// Fetches the batch, which knows the number of its results, and starts the download. Blocks for
    /// both calls, until the response of the download begins.
    pub(super) fn fetch(client: &Client, id: &str) -> Result<BatchResults> {
        let batch = endpoints::get(client, id)?;
        let path = format!("{}/results", path_with_id("GET", PATH, id)?);
        if !batch.is_ended() {
            let id = sanitize(id, MAX_ID_CHARS);
            let what = format!("{id} has not ended, and has no results yet");
            return Err(
                Error::rejected(format!("GET {path}"), what).with_advice("wait for it first")
            );
        }
        let Some(url) = &batch.results_url else {
            let what = format!("{} has no results any more", sanitize(id, MAX_ID_CHARS));
            let cause = Cause::Rejected(what.into());
            let action = format!("GET {path}");
            return Err(Error::new(ErrorKind::NotFound, action, cause));
        };
        // A URL elsewhere is not requested: the API key must not go to another host.
        let path = path_below_base(client, url).map_or(path, str::to_owned);
        BatchResults::start(client, &batch, path)
    }

    fn start(client: &Client, batch: &MessageBatch, path: String) -> Result<BatchResults> {
        // The official clients send this header with the request for results.
        let options = Options::new().header("accept", "application/binary")?;
        let mut results = BatchResults {
            client: client.with(options),
            path,
            body: None,
            is_framed: false,
            buffer: LineBuffer::new(Vec::new()),
            bytes_read: 0,
            digest: Digest::new(),
            lines: 0,
            expected_lines: batch.request_counts.total(),
            retry_state: None,
            meta: ResponseMeta::default(),
        };
        results.start_download()?;
        Ok(results)
    }

    /// Reads the next line that is not blank, and returns its range in the buffer, for
    /// [`line`](BatchResults::line). Blocks until the line is there, and starts a broken download
    /// again.
    pub(super) fn next_line(&mut self) -> Option<Result<Range<usize>>> {
        loop {
            while let Some(line) = self.take_line() {
                if self.count_line(&line) {
                    return Some(Ok(line));
                }
            }
            let failure = match self.read_more()? {
                Ok(0) => match self.end_download() {
                    Ok(last_line) => return last_line.map(Ok),
                    Err(failure) => failure,
                },
                Ok(_) => continue,
                Err(failure) => failure,
            };
            if let Err(error) = self.retry_or_fail(failure) {
                self.body = None;
                return Some(Err(error));
            }
        }
    }

    /// Returns the bytes of a line that [`next_line`](BatchResults::next_line) found.
    pub(super) fn line(&self, line: Range<usize>) -> &[u8] {
        &self.buffer.bytes[line]
    }

    /// Parses a line; the error says what is wrong with the line.
    pub(super) fn parse(&self, line: Range<usize>) -> Result<BatchEntry> {
        parse_response(self.line(line)).map_err(|error| self.unreadable_line(&error))
    }

    /// Creates the error for the current line, which is not a result.
    pub(super) fn unreadable_line(&self, error: &serde_json::Error) -> Error {
        self.error(
            ErrorKind::Decode,
            Cause::Unusable {
                what: format!("line {} is no result of a batch", self.lines).into(),
                source: json_error(error),
            },
        )
    }

    /// Creates an error with the attempts and the response of the current download.
    pub(super) fn error(&self, kind: ErrorKind, cause: Cause) -> Error {
        Error::new(kind, self.action(), cause)
            .with_response(self.meta.request_id.clone(), self.meta.rate_limits.clone())
            .with_attempts(self.meta.attempts.clone())
    }

    /// Describes the download for errors and log lines, without the query of its path, which may hold
    /// a signature.
    fn action(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("GET {}", sanitize(path, MAX_PATH_CHARS))
    }

    /// Takes the next whole line out of the buffer, and adds the line to the digest.
    fn take_line(&mut self) -> Option<Range<usize>> {
        let line = self.buffer.take_line()?;
        let with_line_end = &self.buffer.bytes[line.start..=line.end];
        self.digest.add(with_line_end);
        self.bytes_read += with_line_end.len() as u64;
        Some(line)
    }

    /// Counts a line that is not blank, which also ends a series of retries. Returns whether the
    /// line counts.
    fn count_line(&mut self, line: &Range<usize>) -> bool {
        if is_blank(&self.buffer.bytes[line.clone()]) {
            return false;
        }
        self.lines += 1;
        self.retry_state = None;
        true
    }

    /// Reads more bytes into the buffer, and returns their number, 0 at the end of the body. Returns
    /// `None` after the end of the download.
    fn read_more(&mut self) -> Option<Result<usize, Failure>> {
        let body = self.body.as_mut()?;
        if self.buffer.unread().len() > MAX_LINE {
            let cause = Cause::unreadable("in lines of at most 64 MiB", None);
            return Some(Err(Failure::responded(cause)));
        }
        Some(self.buffer.fill_from(body).map_err(Failure::from))
    }

    /// Handles the end of the body: returns the last line if it lacks its line end, or the failure
    /// if the results cannot be complete.
    fn end_download(&mut self) -> Result<Option<Range<usize>>, Failure> {
        let last = self.buffer.unread();
        let has_last_line = !is_blank(last);
        // Any other invalid JSON is a whole line that cannot be read.
        let is_cut_off = has_last_line
            && serde_json::from_slice::<serde::de::IgnoredAny>(last)
                .is_err_and(|error| error.is_eof());
        let lines = self.lines + u64::from(has_last_line);
        if is_cut_off || (lines < self.expected_lines && !self.is_framed) {
            return Err(cut());
        }
        let last_line = self.buffer.take_rest();
        if self.count_line(&last_line) {
            // If lines are missing, the body stays: the next call finds its end again, without a
            // last line, and returns the error.
            if self.lines >= self.expected_lines {
                self.body = None;
            }
            return Ok(Some(last_line));
        }
        if self.lines < self.expected_lines {
            return Err(self.too_few_lines());
        }
        self.body = None;
        Ok(None)
    }

    fn too_few_lines(&self) -> Failure {
        let (lines, expected) = (self.lines, self.expected_lines);
        let what = format!("the results end after {lines} of {expected}");
        Failure::responded(Cause::Rejected(what.into()))
    }

    /// Sleeps after a failure and starts the download again, or returns the final error.
    ///
    /// A [`Call`] retries only until its response has begun. Failures after that are retried here.
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
            // Too few lines: the response is at fault, and not the request.
            Cause::Rejected(_) => ErrorKind::Decode,
            _ => classification.kind,
        };
        let policy = self.client.settings().retry;
        let retry_state = self.retry_state.get_or_insert_with(|| {
            let rng = lock(&core.rng).fork();
            RetryState::new(policy, rng)
        });
        let decision = retry_state.decide(classification.action, None, false, || {
            lock(&core.retry_budget).take_retry(core.sleeper.clock().now())
        });
        let wait = match decision {
            Decision::RetryAfter(wait) => wait,
            // Unreachable: only a call that waits in the budget's queue is sent back there.
            Decision::Requeue => Duration::ZERO,
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

    /// Requests the results, and skips the lines that were read before. Blocks until the
    /// response has begun and these lines have arrived.
    fn start_download(&mut self) -> Result<()> {
        self.body = None;
        let client = self.client.clone();
        let call = Call {
            // Reading results changes nothing on the server.
            repeatable: true,
            ..client.streaming_call("GET", &self.path, None)
        };
        let (bytes_read, digest) = (self.bytes_read, &self.digest);
        let (download, meta) =
            call.run_without_tokens(|response| skip_read_bytes(response, bytes_read, digest))?;
        self.body = Some(download.body);
        self.is_framed = download.is_framed;
        self.buffer = LineBuffer::new(download.unread);
        self.meta = meta;
        Ok(())
    }
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
            .field("expected", &self.expected_lines)
            .finish_non_exhaustive()
    }
}

/// A new download, after the lines that were read from the broken one.
struct Download {
    body: ResponseBody,
    is_framed: bool,
    /// The bytes that were received beyond the skipped lines.
    unread: Vec<u8>,
}

/// Skips the `bytes_read` bytes of a download that were read before it broke. Fails if their digest
/// is not `digest_read`.
fn skip_read_bytes(
    response: &mut Response,
    bytes_read: u64,
    digest_read: &Digest,
) -> Result<Download, Failure> {
    let is_framed = response.is_framed();
    let mut left = bytes_read;
    let mut digest = Digest::new();
    let mut buffer = Vec::new();
    while left > 0 {
        buffer.resize(READ_SIZE, 0);
        let received = response.body.read(&mut buffer)?;
        if received == 0 {
            return Err(cut());
        }
        buffer.truncate(received);
        // `left` may be too large for a `usize` of 32 bits.
        let skipped = usize::try_from(left).map_or(received, |left| left.min(received));
        digest.add(&buffer[..skipped]);
        left -= skipped as u64;
        if left == 0 {
            buffer.drain(..skipped);
        }
    }
    if digest != *digest_read {
        let cause = Cause::unreadable("what the same download gave before it broke", None);
        return Err(Failure::responded(cause));
    }
    Ok(Download {
        body: response.take_body(),
        is_framed,
        unread: buffer,
    })
}

/// The bytes that were received, divided into lines.
struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the bytes begin that belong to no line yet.
    unread_start: usize,
    /// The number of unread bytes that are known to hold no line end.
    searched: usize,
}

impl LineBuffer {
    fn new(bytes: Vec<u8>) -> LineBuffer {
        LineBuffer {
            bytes,
            unread_start: 0,
            searched: 0,
        }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.unread_start..]
    }

    /// Takes the next line, and returns its range in `bytes`, which the line end follows. Returns
    /// `None` if there is no whole line.
    fn take_line(&mut self) -> Option<Range<usize>> {
        let start = self.unread_start;
        let unsearched = &self.unread()[self.searched..];
        let Some(length) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.unread().len();
            return None;
        };
        let end = start + self.searched + length;
        self.unread_start = end + 1;
        self.searched = 0;
        Some(start..end)
    }

    /// Takes all unread bytes, and returns their range.
    fn take_rest(&mut self) -> Range<usize> {
        let rest = self.unread_start..self.bytes.len();
        self.unread_start = rest.end;
        self.searched = 0;
        rest
    }

    /// Drops the lines that were taken, and reads more bytes. Returns the number of bytes read.
    fn fill_from(&mut self, body: &mut ResponseBody) -> Result<usize, Fault> {
        self.bytes.drain(..self.unread_start);
        self.unread_start = 0;
        let end = self.bytes.len();
        self.bytes.resize(end + READ_SIZE, 0);
        let read = body.read(&mut self.bytes[end..]);
        self.bytes
            .truncate(end + read.as_ref().map_or(0, |count| *count));
        read
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// Returns the path of a URL that is below the client's base URL; `None` for any other URL.
fn path_below_base<'u>(client: &Client, url: &'u str) -> Option<&'u str> {
    let path = url.strip_prefix(client.core().base_url.as_str())?;
    let is_sendable = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    (path.starts_with('/') && is_sendable).then_some(path)
}

/// The number of bytes read at a time: 64 KiB.
const READ_SIZE: usize = 64 << 10;

/// The maximum size of a line in bytes: 64 MiB, far above any message.
const MAX_LINE: usize = 64 << 20;

/// The maximum number of characters of a batch's id in an error.
const MAX_ID_CHARS: usize = 100;

/// The maximum number of characters of a path in an error or a log line.
const MAX_PATH_CHARS: usize = 200;
