//! Threads under a scheduler that tries their orders, and a time that belongs to it.
//!
//! ```text
//! RUSTFLAGS="--cfg model_check" cargo test --lib ::model::
//! ```
//!
//! Each model runs under six schedulers: three ways to choose who goes next, and two rules for time.
//!
//! - All orders with at most two preemptions, as far as the bound reaches; random orders; and
//!   orders by random priorities (PCT).
//! - Time stands still while any thread can go on, and then moves to the end of the next sleep: a
//!   wake-up that is lost shows as a grant that comes late. Or any sleep may end at any moment,
//!   however long it was to last.
//!
//! That takes a few seconds, with 200 runs for each scheduler. `MODEL_RUNS=100000` and
//! `MODEL_PREEMPTIONS=4` search longer and deeper, best with `--release`; `-- --nocapture` shows for
//! which models all orders were tried.
#![cfg(model_check)]

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, MaxSteps, Runner, current, thread};

/// RetryState the orders in which the threads of a model can run.
#[track_caller]
pub(crate) fn check(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let (model, start) = (Arc::new(model), Instant::now());
    let (runs, preemptions) = (setting("MODEL_RUNS", 200), setting("MODEL_PREEMPTIONS", 2));
    for is_timely in [true, false] {
        let run = |scheduler: Box<dyn Scheduler + Send>| {
            let mut config = Config::new();
            config.stack_size = 0x40000;
            config.max_steps = MaxSteps::FailAfter(20_000);
            let model = Arc::clone(&model);
            let timely = Timely {
                scheduler,
                is_timely,
            };
            Runner::new(timely, config).run(move || model())
        };
        let orders = run(Box::new(Orders::new(preemptions, runs)));
        let is_whole = if orders < runs { "all" } else { "the first" };
        run(Box::new(RandomScheduler::new_from_seed(SEED, runs)));
        run(Box::new(PctScheduler::new_from_seed(SEED, 3, runs)));
        println!(
            "{name}, timely {is_timely}: {is_whole} {orders} orders, {:?}",
            start.elapsed()
        );
    }
}

fn setting(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |set| set.parse().expect("a number"))
}

const SEED: u64 = 7;

thread_local! {
    /// Of the model that runs on this thread.
    static TIME: RefCell<Time> = RefCell::new(Time::new());
}

struct Time {
    start: Instant,
    passed: Duration,
    /// Who sleeps, and until when.
    sleeps: Vec<(TaskId, Duration)>,
    /// How many sleeps have lasted until their end.
    ended: usize,
    is_timely: bool,
}

impl Time {
    fn new() -> Time {
        Time {
            start: Instant::now(),
            passed: Duration::ZERO,
            sleeps: Vec::new(),
            ended: 0,
            is_timely: true,
        }
    }

    /// Until when a thread sleeps, unless it is awake or its time has come.
    fn end(&self, task: TaskId) -> Option<Duration> {
        let sleep = self.sleeps.iter().find(|(sleeper, _)| *sleeper == task);
        let end = sleep.map(|(_, end)| *end);
        end.filter(|end| *end > self.passed)
    }
}

fn with_time<T>(f: impl FnOnce(&mut Time) -> T) -> T {
    TIME.with(|time| f(&mut time.borrow_mut()))
}

/// What the machine's clock shows in a model.
pub(crate) fn now() -> Instant {
    with_time(|time| time.start + time.passed)
}

/// How much time has passed in this run of the model.
pub(crate) fn passed() -> Duration {
    with_time(|time| time.passed)
}

/// Whether time stands still while any thread can go on.
pub(crate) fn is_timely() -> bool {
    with_time(|time| time.is_timely)
}

/// Has time pass.
pub(crate) fn pass(duration: Duration) {
    with_time(|time| time.passed += duration);
}

/// Sleeps, with nothing that could end it early.
pub(crate) fn sleep(duration: Duration) {
    let (nobody, lock) = (Condvar::new(), Mutex::new(()));
    let guard = lock.lock().expect("nobody else has it");
    drop(nobody.wait_timeout(guard, duration));
}

/// A mutex, which can be found again from its guard.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    guard: shuttle::sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let with = |guard| MutexGuard { guard, mutex: self };
        let locked = self.0.lock().map(with);
        locked.map_err(|poisoned| PoisonError::new(with(poisoned.into_inner())))
    }

    pub(crate) fn into_inner(self) -> LockResult<T> {
        self.0.into_inner()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A condition variable whose waits end in the time of the model. Those of the model checker never
/// time out.
#[derive(Default)]
pub(crate) struct Condvar {
    waiters: StdMutex<Vec<Arc<Waiter>>>,
}

struct Waiter {
    task: TaskId,
    is_notified: AtomicBool,
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(guard, FOR_EVER)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        duration: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let end = passed().saturating_add(duration);
        let guard = self.wait_until(guard, end).map(|guard| (guard, ()));
        guard.map_err(|poisoned| PoisonError::new((poisoned.into_inner(), ())))
    }

    /// Who is chosen to run although it sleeps has slept until its end.
    fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        end: Duration,
    ) -> LockResult<MutexGuard<'a, T>> {
        let mutex = guard.mutex;
        let waiter = Arc::new(Waiter {
            task: current::me(),
            is_notified: AtomicBool::new(false),
        });
        self.waiters().push(Arc::clone(&waiter));
        // A scheduling point before, and none after: who notifies from here on is heard.
        drop(guard);
        let is_notified = || waiter.is_notified.load(Ordering::SeqCst);
        if !is_notified() {
            with_time(|time| time.sleeps.push((waiter.task, end)));
            thread::yield_now();
            with_time(|time| time.sleeps.retain(|(task, _)| *task != waiter.task));
            if !is_notified() {
                with_time(|time| {
                    time.passed = time.passed.max(end);
                    time.ended += 1;
                });
                self.leave(&waiter);
            }
        }
        mutex.lock()
    }

    pub(crate) fn notify_one(&self) {
        switch();
        let first = self.waiters().first().cloned();
        if let Some(first) = first {
            self.notify(&first);
        }
    }

    pub(crate) fn notify_all(&self) {
        switch();
        let all = self.waiters().clone();
        all.iter().for_each(|waiter| self.notify(waiter));
    }

    fn notify(&self, waiter: &Arc<Waiter>) {
        self.leave(waiter);
        waiter.is_notified.store(true, Ordering::SeqCst);
        with_time(|time| time.sleeps.retain(|(task, _)| *task != waiter.task));
    }

    fn leave(&self, waiter: &Arc<Waiter>) {
        self.waiters().retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// Never held where another thread can be chosen.
    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waiter>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar")
    }
}

/// The end of a sleep that only a notification ends.
const FOR_EVER: Duration = Duration::MAX;

/// Lets the scheduler choose another thread.
fn switch() {
    thread::sleep(Duration::ZERO);
}

/// Chooses among those who are awake, as long as there are any, and else those who wake up next.
struct Timely {
    scheduler: Box<dyn Scheduler + Send>,
    is_timely: bool,
}

impl Scheduler for Timely {
    fn new_execution(&mut self) -> Option<Schedule> {
        with_time(|time| {
            *time = Time::new();
            time.is_timely = self.is_timely;
        });
        self.scheduler.new_execution()
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let end = |task: &&Task| with_time(|time| time.end(task.id()));
        // Who is awake comes before all who sleep: `None` is less than any end.
        let first = runnable.iter().map(end).min().flatten();
        assert_ne!(first, Some(FOR_EVER), "all wait, and nobody will wake them");
        // Or else one that looks again and again could keep all others from ever going on.
        let is_timely = self.is_timely || with_time(|time| time.ended) > MOST_EARLY;
        let may_run = |task: &&Task| match is_timely {
            true => end(task) == first,
            false => end(task) != Some(FOR_EVER),
        };
        let choice: Vec<&Task> = runnable.iter().copied().filter(may_run).collect();
        self.scheduler.next_task(&choice, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.scheduler.next_u64()
    }
}

/// After so many ends of sleeps, time stands still while any thread can go on.
const MOST_EARLY: usize = 12;

/// All orders in turn in which at most so many threads are preempted, depth first.
struct Orders {
    preemptions: usize,
    left: usize,
    runs: usize,
    /// Which choice was made at each step, and of how many.
    path: Vec<(usize, usize)>,
    step: usize,
    random: u64,
}

impl Orders {
    fn new(preemptions: usize, runs: usize) -> Orders {
        Orders {
            preemptions,
            left: 0,
            runs,
            path: Vec::new(),
            step: 0,
            random: 0,
        }
    }
}

impl Scheduler for Orders {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.step > 0 {
            while self.path.last().is_some_and(|(at, of)| at + 1 == *of) {
                self.path.pop();
            }
            self.path.last_mut()?.0 += 1;
        }
        if self.runs == 0 {
            return None;
        }
        self.runs -= 1;
        (self.left, self.step, self.random) = (self.preemptions, 0, 0);
        Some(Schedule::new(SEED))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let current = runnable.iter().position(|task| Some(task.id()) == current);
        let current = current.filter(|_| !is_yielding);
        // The one that runs goes on first of all.
        let choices = match current {
            Some(_) if self.left == 0 => 1,
            _ => runnable.len(),
        };
        if self.path.len() == self.step {
            self.path.push((0, choices));
        }
        let (choice, of) = self.path[self.step];
        assert_eq!(of, choices, "the model does not behave the same each time");
        self.step += 1;
        let first = current.unwrap_or(0);
        self.left -= usize::from(current.is_some() && choice > 0);
        Some(runnable[(first + choice) % runnable.len()].id())
    }

    fn next_u64(&mut self) -> u64 {
        self.random += 1;
        self.random
    }
}
