//! The pure machines of the budget: they decide when a request may be sent, and learn from what
//! happens to it. No I/O, no lock, no clock: `now` is an argument.
//!
//! [`ClassLimiter`](class_limiter::ClassLimiter) combines the machines of one model class. A
//! request is admitted at the latest of the times that the machines name:
//!
//! - **The server's buckets** ([`server_buckets`]): has the server room? The API refills a token
//!   bucket continuously, up to the limit of one minute. The model refills the same way, reserves
//!   the *expected* cost of a request at admission and settles the actual one at the end. A margin
//!   covers the sum of the uncertainties of all requests in flight.
//! - **The window** ([`window`]): the caller's own limits, a promise about every span of 60 s. A
//!   server's bucket needs no window: it may spend a stored minute on top of the refill.
//! - **The pace** ([`pacer`]): at most twice the limit, so that the stored minute is spent over
//!   about a minute; a run ramps up from a quarter of the limit and doubles every 10 s.
//! - **The overload gate** ([`overload_gate`]): after a 529 one probe at a time, then twice as many
//!   unproven requests in each *refusal time*, which is far shorter than the time of a response.
//!   It belongs to the host and serves all classes.
//! - **The pause** after a 429, as long as its `retry-after` says.
//!
//! # Why levels are a band
//!
//! The client cannot know when the server charges a request in flight: on arrival, as output is
//! produced, or not yet. The server's true level is between the available amount (all is charged)
//! and the available plus the reserved amount (nothing is). One inequality must always hold:
//!
//! > available + reserved ≤ the server's level + what it has charged to the requests in flight
//!
//! Admission, charge and settlement keep it, and both sides refill at the same rate. Only the
//! capacity could break it: therefore the *sum* of available and uncharged cost is cut at the
//! capacity, not the available amount alone. It follows that with estimates that are upper bounds
//! in sum, the server never refuses; `a_million_upper_bounds_are_never_refused` tests that.
//!
//! # How headers correct the levels
//!
//! `remaining` is the level at some instant between the arrival of the request and the response. It
//! is compared with the band over that time ([`level_history`]): inside it says nothing. A lower
//! value means that other clients use the bucket; it lowers the level and raises the estimate of
//! foreign use, which is subtracted from the refill and forgotten over a minute. A higher value
//! raises the level by half of the difference. A `remaining` near 0 is no warning: a bucket that is
//! fully used is always nearly empty.
//!
//! # Tuning
//!
//! The constants of each machine are at the end of its file. Each doc ends with the rows of the
//! simulation's table that move when the constant is halved and doubled, on average over the seeds:
//! the ratio of makespan to demand / limit by at least 0.01, 429s by at least 0.7 and 10 %, 529s by
//! at least 2 and 10 %. Smaller movements are noise, since any change of timing shifts all later
//! events. `simulation/goals.rs` prints the table. The simulation is a model: a constant at which
//! no row moves is at a flat optimum there, or no scenario reaches it; its doc then says what moves
//! at the value at which its mechanism does not exist, or why it stays. Lines without a number of
//! seeds are means over 10 seeds.

mod math;

// One bucket of the server, and the history of its levels.
mod token_bucket;

mod level_history;

// What requests cost, and what the server says.
mod estimate;
pub(crate) mod headers;

// All buckets of a class.
mod server_buckets;
mod server_refusals;

// The other machines.
mod window;

mod pacer;

pub(crate) mod overload_gate;

// What a limiter returns and keeps.
pub(crate) mod decision;
pub(crate) mod slab;

pub(crate) mod class_limiter;

#[cfg(test)]
mod simulation;
