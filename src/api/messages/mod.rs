//! Messages: create, stream, count the tokens of a request.
//!
//! `messages` holds the public methods, which build a call. `event_reader` reads the response,
//! event by event or in one piece, and folds it into a message. `stream` hands out the events as
//! they arrive. `typed` reads a complete message as a type of the caller's.

// A complete message as a type of the caller's.
mod typed;

// A response as events.
mod event_reader;

// The public methods, and the stream that one of them returns.
mod stream;

mod messages;

pub use self::messages::Messages;
pub use self::stream::{MessageStream, TextDeltas};
