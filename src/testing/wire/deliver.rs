//! Sends replies, with their faults and pauses.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::receive::RequestReader;
use super::render::{Rendered, RenderedBody, RequestContext};
use crate::testing::frames::{Frame, Frames};
use crate::testing::reply::{Dribble, Framing, InjectedFault, Reply};
use crate::testing::stream::StreamEnding;
use crate::testing::sync::StopSignal;

/// What to do with the connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterReply {
    /// Read the next request.
    KeepAlive,
    /// Close it.
    Close,
    /// Close it while the end of the request is still unread, which resets it.
    Reset,
}

/// Sends `reply` as the response to the request that `reader` read last.
///
/// Blocks for the delays, pauses and stalls of the reply, until the server stops.
pub(crate) fn deliver(
    reply: &Reply,
    context: &RequestContext<'_>,
    socket: &TcpStream,
    reader: &mut RequestReader<'_>,
    stop_signal: &StopSignal,
) -> AfterReply {
    if !reply.delay.is_zero() && !stop_signal.pause(reply.delay) {
        return AfterReply::Close;
    }
    let mut sender = Sender {
        socket,
        reader,
        stop_signal,
        dribble: reply.dribble,
        buffered: Vec::new(),
        is_chunked: false,
        left_before_fault: None,
    };
    match reply.fault {
        Some(InjectedFault::ResetBeforeBodyRead | InjectedFault::ResetBeforeHeaders) => {
            return AfterReply::Reset;
        }
        Some(InjectedFault::StallBeforeHeaders) => return sender.stall(None),
        _ => {}
    }
    match sender.send(reply.render(context), reply.fault) {
        Ok(after) => after,
        Err(_) => AfterReply::Close,
    }
}

/// Writes one reply to the socket; small writes are gathered.
struct Sender<'a, 'b> {
    socket: &'a TcpStream,
    reader: &'a mut RequestReader<'b>,
    stop_signal: &'a StopSignal,
    dribble: Option<Dribble>,
    buffered: Vec<u8>,
    is_chunked: bool,
    /// How many bytes of the body may still be sent before the fault.
    left_before_fault: Option<usize>,
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
        self.left_before_fault = match fault {
            Some(
                InjectedFault::ResetInBody(left)
                | InjectedFault::Truncate(left)
                | InjectedFault::Stall(left),
            ) => Some(left),
            _ => None,
        };
        self.is_chunked = framing == Framing::Chunked;
        self.buffered = head;
        let ended = match body {
            RenderedBody::Bytes(bytes) => self.send_bytes(&bytes)?,
            RenderedBody::Frames(mut frames) => self.send_frames(&mut frames)?,
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

    fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<Option<AfterReply>> {
        let size = if self.is_chunked {
            CHUNK_SIZE
        } else {
            bytes.len().max(1)
        };
        for piece in bytes.chunks(size) {
            if !self.send_piece(piece)? {
                break;
            }
        }
        Ok(None)
    }

    /// Sends a stream; returns `Some` if the script itself ends the connection.
    fn send_frames(&mut self, frames: &mut Frames) -> io::Result<Option<AfterReply>> {
        let mut piece = Vec::new();
        loop {
            let frame = frames.next(&mut piece);
            let is_whole = !frames.script().one_chunk || !matches!(frame, Frame::Bytes);
            if is_whole {
                if !self.send_piece(&piece)? {
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

    /// Sends a piece of the body; returns `false` at the byte where the fault happens.
    fn send_piece(&mut self, piece: &[u8]) -> io::Result<bool> {
        if self.left_before_fault == Some(0) {
            return Ok(false);
        }
        if piece.is_empty() {
            return Ok(true);
        }
        if self.is_chunked {
            write!(self.buffered, "{:x}\r\n", piece.len())?;
        }
        if let Some(left) = self.left_before_fault {
            if piece.len() >= left {
                self.put(&piece[..left])?;
                return Ok(false);
            }
            self.left_before_fault = Some(left - piece.len());
        }
        self.put(piece)?;
        if self.is_chunked {
            self.put(b"\r\n")?;
        }
        Ok(true)
    }

    /// Sends nothing but the pings of `frames` until the client goes away or the server stops.
    fn stall(&mut self, frames: Option<&mut Frames>) -> AfterReply {
        match self.try_stall(frames) {
            Ok(()) | Err(_) => AfterReply::Close,
        }
    }

    fn try_stall(&mut self, mut frames: Option<&mut Frames>) -> io::Result<()> {
        self.flush()?;
        self.reader.consume_held()?;
        let interval = frames
            .as_ref()
            .and_then(|frames| frames.script().ping_every)
            .map(|interval| interval.max(Duration::from_millis(1)));
        self.socket.set_read_timeout(interval)?;
        let mut socket = self.socket;
        loop {
            // Reading ends when the client goes away and when the server shuts the socket down.
            match socket.read(&mut [0; 512]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => match (error.kind(), &mut frames) {
                    (io::ErrorKind::Interrupted, _) => {}
                    (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(frames)) => {
                        let ping = frames.ping();
                        self.send_piece(&ping)?;
                        self.flush()?;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// Sends bytes, at the latest at the next `flush`.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffered.len() + bytes.len() <= WRITE_BUFFER {
            self.buffered.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() <= WRITE_BUFFER {
            self.buffered.extend_from_slice(bytes);
            return Ok(());
        }
        self.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut buffered = std::mem::take(&mut self.buffered);
        let written = self.write(&buffered);
        buffered.clear();
        self.buffered = buffered;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut socket = self.socket;
        let Some(dribble) = self.dribble else {
            return socket.write_all(bytes);
        };
        for piece in bytes.chunks(dribble.bytes_at_a_time) {
            socket.write_all(piece)?;
            self.pause(dribble.between)?;
        }
        Ok(())
    }

    fn pause(&self, duration: Duration) -> io::Result<()> {
        if duration.is_zero() || self.stop_signal.pause(duration) {
            return Ok(());
        }
        Err(io::Error::other("the server stops"))
    }
}

/// The largest HTTP chunk of a body that is no stream, as documented at `Reply::chunked`.
const CHUNK_SIZE: usize = 4096;

/// How many bytes are gathered before a write.
const WRITE_BUFFER: usize = 64 * 1024;
