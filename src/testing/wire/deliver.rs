//! Sends the replies of the test server, with their faults and pauses.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::receive::RequestReader;
use super::render::{Rendered, RenderedBody, RequestContext};
use crate::testing::frames::{Frame, Frames};
use crate::testing::reply::{Framing, InjectedFault, Reply};
use crate::testing::stream::StreamEnding;
use crate::testing::sync::StopSignal;

/// What to do with the connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterReply {
    /// Read the next request.
    KeepAlive,
    /// End it orderly.
    Close,
    /// End it at once, with the end of the request still unread.
    Reset,
}

/// Sends `reply` as the answer to the request that `inbox` read last.
pub(crate) fn deliver(
    reply: &Reply,
    exchange: &RequestContext<'_>,
    socket: &TcpStream,
    inbox: &mut RequestReader<'_>,
    stopper: &StopSignal,
) -> AfterReply {
    if !reply.delay.is_zero() && !stopper.pause(reply.delay) {
        return AfterReply::Close;
    }
    let mut sender = Sender {
        socket,
        inbox,
        stopper,
        dribble: reply.dribble,
        waiting: Vec::new(),
        is_chunked: false,
        left: None,
    };
    match reply.fault {
        Some(InjectedFault::ResetBeforeBodyRead | InjectedFault::ResetBeforeHeaders) => {
            return AfterReply::Reset;
        }
        Some(InjectedFault::StallBeforeHeaders) => return sender.stall(None),
        _ => {}
    }
    match sender.send(reply.render(exchange), reply.fault) {
        Ok(after) => after,
        Err(_) => AfterReply::Close,
    }
}

/// Puts one reply on the wire; small writes are gathered.
struct Sender<'a, 'b> {
    socket: &'a TcpStream,
    inbox: &'a mut RequestReader<'b>,
    stopper: &'a StopSignal,
    dribble: Option<(usize, Duration)>,
    waiting: Vec<u8>,
    is_chunked: bool,
    /// How many bytes of the body may still be sent before the fault.
    left: Option<usize>,
}

impl Sender<'_, '_> {
    fn send(&mut self, rendered: Rendered, fault: Option<InjectedFault>) -> io::Result<AfterReply> {
        let Rendered {
            head,
            body,
            framing,
            is_last,
        } = rendered;
        if fault == Some(InjectedFault::ResetInHeaders) {
            let half = match (&body, head.len()) {
                (RenderedBody::Bytes(bytes), 0) => &bytes[..bytes.len() / 2],
                (_, length) => &head[..length / 2],
            };
            self.put(half)?;
            self.flush()?;
            return Ok(AfterReply::Reset);
        }
        self.left = match fault {
            Some(
                InjectedFault::ResetInBody(left)
                | InjectedFault::Truncate(left)
                | InjectedFault::Stall(left),
            ) => Some(left),
            _ => None,
        };
        self.is_chunked = framing == Framing::Chunked;
        self.waiting = head;
        let ended = match body {
            RenderedBody::Bytes(bytes) => self.bytes(&bytes)?,
            RenderedBody::Frames(mut frames) => self.frames(&mut frames)?,
        };
        if let Some(after) = ended {
            return Ok(after);
        }
        match fault {
            Some(InjectedFault::ResetInBody(_)) => {
                self.flush()?;
                return Ok(AfterReply::Reset);
            }
            Some(InjectedFault::Truncate(_)) => {
                self.flush()?;
                return Ok(AfterReply::Close);
            }
            Some(InjectedFault::Stall(_)) => return Ok(self.stall(None)),
            _ => {}
        }
        if self.is_chunked {
            self.put(b"0\r\n\r\n")?;
        }
        self.flush()?;
        Ok(if is_last {
            AfterReply::Close
        } else {
            AfterReply::KeepAlive
        })
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<Option<AfterReply>> {
        let size = if self.is_chunked {
            CHUNK_SIZE
        } else {
            bytes.len().max(1)
        };
        for piece in bytes.chunks(size) {
            if !self.body(piece)? {
                break;
            }
        }
        Ok(None)
    }

    /// Sends a stream; `Some` where the script itself ends the connection.
    fn frames(&mut self, frames: &mut Frames) -> io::Result<Option<AfterReply>> {
        let mut piece = Vec::new();
        loop {
            let frame = frames.next(&mut piece);
            let is_whole = !frames.script().one_chunk || !matches!(frame, Frame::Bytes);
            if is_whole {
                if !self.body(&piece)? {
                    return Ok(None);
                }
                piece.clear();
            }
            match frame {
                Frame::Bytes => {}
                Frame::Pause(duration) => {
                    self.flush()?;
                    self.pause(duration)?;
                }
                Frame::End => break,
            }
        }
        match frames.ending() {
            Some(StreamEnding::Reset) => {
                self.flush()?;
                Ok(Some(AfterReply::Reset))
            }
            Some(StreamEnding::Stall) => Ok(Some(self.stall(Some(frames)))),
            Some(StreamEnding::Cut | StreamEnding::Error(_)) | None => Ok(None),
        }
    }

    /// Sends a piece of the body; whether the fault is still to come.
    fn body(&mut self, piece: &[u8]) -> io::Result<bool> {
        if self.left == Some(0) {
            return Ok(false);
        }
        if piece.is_empty() {
            return Ok(true);
        }
        if self.is_chunked {
            write!(self.waiting, "{:x}\r\n", piece.len())?;
        }
        if let Some(left) = self.left {
            if piece.len() >= left {
                self.put(&piece[..left])?;
                return Ok(false);
            }
            self.left = Some(left - piece.len());
        }
        self.put(piece)?;
        if self.is_chunked {
            self.put(b"\r\n")?;
        }
        Ok(true)
    }

    /// Falls silent, but for the pings of `frames`, until the client goes away or the server stops.
    fn stall(&mut self, frames: Option<&mut Frames>) -> AfterReply {
        match self.try_stall(frames) {
            Ok(()) | Err(_) => AfterReply::Close,
        }
    }

    fn try_stall(&mut self, mut frames: Option<&mut Frames>) -> io::Result<()> {
        self.flush()?;
        self.inbox.release()?;
        let interval = frames
            .as_ref()
            .and_then(|frames| frames.script().ping_every)
            .map(|interval| interval.max(Duration::from_millis(1)));
        self.socket.set_read_timeout(interval)?;
        let mut socket = self.socket;
        loop {
            // Reading notices both a client that goes away and the server when it stops.
            match socket.read(&mut [0; 512]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => match (error.kind(), &mut frames) {
                    (io::ErrorKind::Interrupted, _) => {}
                    (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(frames)) => {
                        let ping = frames.ping();
                        self.body(&ping)?;
                        self.flush()?;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// Sends bytes, at the latest with the next `flush`.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.waiting.len() + bytes.len() <= GATHERED {
            self.waiting.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() <= GATHERED {
            self.waiting.extend_from_slice(bytes);
            return Ok(());
        }
        self.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let written = self.write(&waiting);
        waiting.clear();
        self.waiting = waiting;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut socket = self.socket;
        let Some((size, between)) = self.dribble else {
            return socket.write_all(bytes);
        };
        for piece in bytes.chunks(size) {
            socket.write_all(piece)?;
            self.pause(between)?;
        }
        Ok(())
    }

    fn pause(&self, duration: Duration) -> io::Result<()> {
        if duration.is_zero() || self.stopper.pause(duration) {
            return Ok(());
        }
        Err(io::Error::other("the server stops"))
    }
}

const CHUNK_SIZE: usize = 4096;
const GATHERED: usize = 64 * 1024;
