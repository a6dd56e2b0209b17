//! The guide: a page for each task, where the reference is not enough.
//!
//! | page | subject |
//! |---|---|
//! | [`requests`] | tools, images, documents, caching, JSON, thinking: what a request can hold |
//! | [`limits`] | what a request waits for, what to set, how the client learns the server's limits |
//! | [`retries`] | what is retried, for how long, what it can cost, what an error says |
//! | [`streams`] | messages as they arrive: reading, stopping, what a broken stream leaves |
//! | [`bulk`] | thousands of requests: journals, spend limits, stopping, threads |
//! | [`batches`] | half the price for requests that can wait, and how to resume after a crash |
//! | [`testing`] | tests of your own program, without a key, a network or waiting |
//!
//! The examples that need a server start the [`TestServer`](crate::testing::TestServer), and are
//! run by the tests of this crate. In your program, use `Client::from_env()` instead.
//!
//! These modules hold text only.
#![cfg_attr(
    not(feature = "testing"),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the test server exists with its feature only"
    )
)]

#[doc = include_str!("requests.md")]
pub mod requests {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("retries.md")]
pub mod retries {}

#[doc = include_str!("streams.md")]
pub mod streams {}

#[doc = include_str!("bulk.md")]
pub mod bulk {}

#[doc = include_str!("batches.md")]
pub mod batches {}

#[doc = include_str!("testing.md")]
pub mod testing {}
