//! Now, wall time, sleep and cancellation: the only folder that reads a clock or stops a thread.

pub(crate) mod sync;

mod cancel;
mod lock;
mod monotonic;

#[cfg(feature = "testing")]
mod manual;

mod clock;
mod sleeper;

pub(crate) use self::cancel::CancelToken;
pub(crate) use self::clock::Clock;
pub(crate) use self::lock::lock;
#[cfg(feature = "testing")]
pub(crate) use self::manual::ManualTime;
pub(crate) use self::sleeper::Sleeper;
