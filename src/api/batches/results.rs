//! The results of a batch, line by line, of any size in flat memory.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;
use std::time::Duration;

use log::info;

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
/// Each `next` blocks until a line arrives, at most for the idle timeout. Only the line at hand is in
/// memory. A download that breaks is begun again, and continues with the line after the last one
/// that was handed out, as often as the client's [`RetryPolicy`](crate::RetryPolicy) permits without
/// a new line. A line that cannot be read is an error of its own, and the next one follows; any
/// other error is the last item. Results that end before their time are such an error: what the
/// batch counts has to arrive.
///
/// The client's [`deadline`](crate::ClientBuilder::deadline) holds for each download, from its
/// request to its last line, with the time that is spent between two lines.
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
#[must_use = "the results are read as the iterator goes"]
pub struct BatchResults {
    client: Client,
    path: String,
    body: Option<ResponseBody>,
    /// Whether the head of the answer said where it ends.
    is_framed: bool,
    buffer: Vec<u8>,
    /// Where in the buffer begins what no line has used.
    start: usize,
    /// How far that was searched for the end of a line.
    searched: usize,
    /// The lines read so far: how many bytes with their ends, and what they were.
    offset: u64,
    digest: Digest,
    /// How many lines were handed out, of how many that the batch counts; 0 where it does not say.
    lines: u64,
    expected: u64,
    /// What was tried since the last line.
    retry_state: Option<RetryState>,
    meta: ResponseMeta,
}

impl BatchResults {
    /// Begins the download of a batch that has ended.
    pub(super) fn open(
        client: &Client,
        batch: &MessageBatch,
        path: String,
    ) -> Result<BatchResults> {
        // What the official clients ask for here.
        let options = Options::new().header("accept", "application/binary")?;
        let mut results = BatchResults {
            client: client.with(options),
            path,
            body: None,
            is_framed: false,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            offset: 0,
            digest: Digest::new(),
            lines: 0,
            expected: batch.request_counts.total(),
            retry_state: None,
            meta: ResponseMeta::default(),
        };
        results.download()?;
        Ok(results)
    }

    /// The next line that is not blank, as its place in the buffer.
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
                Some(_) if self.buffer.len() - self.start > LONGEST_LINE => Err(Failure {
                    delivery: Delivery::Responded,
                    ..Failure::from(Cause::Decode {
                        expected: "in lines of a size to be read",
                        excerpt: String::new(),
                        source: None,
                    })
                }),
                Some(body) => {
                    self.buffer.drain(..self.start);
                    self.start = 0;
                    let end = self.buffer.len();
                    self.buffer.resize(end + READ_SIZE, 0);
                    let read = body.read(&mut self.buffer[end..]);
                    let count = read.as_ref().copied().unwrap_or(0);
                    self.buffer.truncate(end + count);
                    match read {
                        Ok(0) => match self.finish() {
                            Ok(line) => return line.map(Ok),
                            Err(failure) => Err(failure),
                        },
                        Ok(_) => Ok(()),
                        Err(fault) => Err(fault.into()),
                    }
                }
            };
            if let Err(failure) = outcome {
                if let Err(error) = self.recover(failure) {
                    self.body = None;
                    return Some(Err(error));
                }
            }
        }
    }

    /// What stands in the buffer there.
    pub(super) fn line(&self, line: Range<usize>) -> &[u8] {
        &self.buffer[line]
    }

    /// Reads a line, or says what is wrong with it.
    pub(super) fn read(&self, line: Range<usize>) -> Result<BatchEntry> {
        parse_response(self.line(line)).map_err(|error| self.unreadable(&error))
    }

    pub(super) fn unreadable(&self, error: &serde_json::Error) -> Error {
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
            .with_answer(self.meta.request_id.clone(), self.meta.rate_limits.clone())
            .with_attempts(self.meta.attempts.clone())
    }

    /// What is being done. Without the query, which may hold a signature.
    fn action(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("GET {}", sanitize(path, 200))
    }

    /// Takes a whole line out of the buffer; an empty place for a blank one.
    fn take_line(&mut self) -> Option<Range<usize>> {
        let from = self.start + self.searched;
        let Some(end) = self.buffer[from..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len() - self.start;
            return None;
        };
        let end = from + end;
        let line = self.start..end;
        self.digest.add(&self.buffer[self.start..=end]);
        self.offset += (end + 1 - self.start) as u64;
        self.start = end + 1;
        self.searched = 0;
        Some(self.count(line))
    }

    fn count(&mut self, line: Range<usize>) -> Range<usize> {
        if self.buffer[line.clone()].trim_ascii().is_empty() {
            return line.start..line.start;
        }
        self.lines += 1;
        self.retry_state = None;
        line
    }

    /// The end of the download: the last line, where it lacks its end, or why it cannot be the end.
    fn finish(&mut self) -> Result<Option<Range<usize>>, Failure> {
        let rest = self.start..self.buffer.len();
        let last = &self.buffer[rest.clone()];
        let is_cut = !last.trim_ascii().is_empty()
            && serde_json::from_slice::<serde::de::IgnoredAny>(last)
                .is_err_and(|error| error.is_eof());
        let lines = self.lines + u64::from(!last.trim_ascii().is_empty());
        if is_cut || (lines < self.expected && !self.is_framed) {
            return Err(cut());
        }
        self.start = rest.end;
        self.searched = 0;
        let line = self.count(rest);
        if self.lines < self.expected && line.is_empty() {
            return Err(self.too_few());
        }
        // A last line goes out first, and what is missing is said after it.
        if self.lines >= self.expected {
            self.body = None;
        }
        Ok((!line.is_empty()).then_some(line))
    }

    fn too_few(&self) -> Failure {
        let (lines, expected) = (self.lines, self.expected);
        let what = format!("the results end after {lines} of {expected}");
        Failure {
            delivery: Delivery::Responded,
            ..Failure::from(Cause::Rejected(what.into()))
        }
    }

    /// After a failure: waits and begins again, or says why not.
    fn recover(&mut self, failure: Failure) -> Result<()> {
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
        let retry = self.client.settings().retry;
        let retry_state = self.retry_state.get_or_insert_with(|| {
            let rng = lock(&core.rng).fork();
            RetryState::new(retry, rng)
        });
        let decision = retry_state.decide(classification.action, None, false, || {
            lock(&core.retries).withdraw(core.sleeper.clock().now())
        });
        let wait = match decision {
            Decision::Again(wait) => wait,
            // Only of calls that the budget admits.
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
            "{}: {what} after {lines} lines: going on in {}",
            self.action(),
            display_duration(wait)
        );
        if core.sleeper.sleep(wait).is_err() {
            return Err(self.error(ErrorKind::Shutdown, Cause::Shutdown));
        }
        self.download()
    }

    /// Asks for the results, and passes over what was read before.
    fn download(&mut self) -> Result<()> {
        self.body = None;
        let client = self.client.clone();
        let call = Call {
            repeatable: true,
            ..client.streaming_call("GET", &self.path, None)
        };
        let (read, digest) = (self.offset, &self.digest);
        let ((body, is_framed, rest), meta) = call.ask(|answer| pass_over(answer, read, digest))?;
        self.body = Some(body);
        self.is_framed = is_framed;
        (self.buffer, self.start, self.searched) = (rest, 0, 0);
        self.meta = meta;
        Ok(())
    }
}

/// Reads the first bytes of a download, which must be those of the one before; gives what was read
/// beyond them.
fn pass_over(
    answer: &mut Response,
    bytes: u64,
    before: &Digest,
) -> Result<(ResponseBody, bool, Vec<u8>), Failure> {
    let is_framed = answer.is_framed();
    let mut left = bytes;
    let mut digest = Digest::new();
    let mut buffer = Vec::new();
    while left > 0 {
        buffer.resize(READ_SIZE, 0);
        let count = answer.body.read(&mut buffer)?;
        if count == 0 {
            return Err(cut());
        }
        buffer.truncate(count);
        let known = usize::try_from(left).map_or(count, |left| left.min(count));
        digest.add(&buffer[..known]);
        left -= known as u64;
        if left == 0 {
            buffer.drain(..known);
        }
    }
    if bytes > 0 && digest != *before {
        return Err(Failure {
            delivery: Delivery::Responded,
            ..Failure::from(Cause::Decode {
                expected: "what the same download gave before it broke",
                excerpt: String::new(),
                source: None,
            })
        });
    }
    Ok((answer.take_body(), is_framed, buffer))
}

impl Iterator for BatchResults {
    type Item = Result<BatchEntry>;

    fn next(&mut self) -> Option<Result<BatchEntry>> {
        let line = self.next_line()?;
        Some(line.and_then(|line| self.read(line)))
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

const READ_SIZE: usize = 64 << 10;

/// The longest line: a message is much smaller.
const LONGEST_LINE: usize = 64 << 20;
