//! Messages: create, stream, count the tokens of a request.
//!
//! [`messages`] sends the request. [`event_reader`] reads the response, event by event or in one
//! piece, and folds it into a message. [`stream`] hands the events out as they arrive.
//! [`typed`] reads a finished message as a type of the caller's.

mod typed;

mod event_reader;

mod stream;

mod messages;

pub use self::messages::Messages;
pub use self::stream::{MessageStream, TextDeltas};
