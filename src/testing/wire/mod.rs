//! HTTP/1.1 as the test server speaks it.
//!
//! `receive` reads a request from a socket, `render` makes the bytes of its reply, and `deliver`
//! writes them with the delays and faults of the reply.

mod receive;

mod render;

mod deliver;

pub(super) use deliver::{AfterReply, deliver};
pub(super) use receive::{ReadFailure, RequestHead, RequestReader};
pub(super) use render::RequestContext;
