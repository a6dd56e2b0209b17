//! Locks and condition variables for model checks: a scheduler runs the threads in many orders, and
//! controls the time.
//!
//! ```text
//! RUSTFLAGS="--cfg model_check" cargo test --lib ::model::
//! ```
//!
//! Each model runs under six schedulers: three ways to choose the next thread, times two rules for
//! time.
//!
//! - The orders are all orders with at most two preemptions, up to the number of runs; random orders;
//!   and orders by random priorities (PCT).
//! - Either time stands still while any thread can run, and then moves to the end of the next sleep:
//!   a lost wake-up shows as a late grant. Or any sleep may end at any moment, whatever its length.
//!
//! All models take a few seconds, with 200 runs for each scheduler. `MODEL_RUNS=100000` and
//! `MODEL_PREEMPTIONS=4` search longer and deeper, best with `--release`; `-- --nocapture` shows
//! for which models all orders were tried.
#![cfg(model_check)]

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, MaxSteps, Runner, current, thread};

/// Runs a model in many orders of its threads; panics if the model panics in any order.
#[track_caller]
pub(crate) fn check(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let (model, start) = (Arc::new(model), Instant::now());
    let (runs, preemptions) = (setting("MODEL_RUNS", 200), setting("MODEL_PREEMPTIONS", 2));
    for is_timely in [true, false] {
        let run = |scheduler: Box<dyn Scheduler + Send>| {
            let mut config = Config::new();
            config.stack_size = STACK_SIZE;
            config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
            let model = Arc::clone(&model);
            let timely = TimelyScheduler {
                scheduler,
                is_timely,
            };
            Runner::new(timely, config).run(move || model())
        };
        let orders = run(Box::new(ExhaustiveScheduler::new(preemptions, runs)));
        let extent = if orders < runs { "all" } else { "the first" };
        run(Box::new(RandomScheduler::new_from_seed(SEED, runs)));
        run(Box::new(PctScheduler::new_from_seed(SEED, PCT_DEPTH, runs)));
        println!(
            "{name}, timely {is_timely}: {extent} {orders} orders, {:?}",
            start.elapsed()
        );
    }
}

/// Returns the value of an environment variable, or else the default.
fn setting(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |set| set.parse().expect("a number"))
}

/// The seed of the random schedulers.
const SEED: u64 = 7;

/// The stack of each thread of a model, in bytes.
const STACK_SIZE: usize = 256 * 1024;

/// After so many steps a run of a model counts as endless.
const MAX_STEPS: usize = 20_000;

/// The depth of the bugs that the PCT scheduler looks for: how many events must be ordered.
const PCT_DEPTH: usize = 3;

thread_local! {
    /// The time of the model that runs on this thread.
    static TIME: RefCell<ModelTime> = RefCell::new(ModelTime::new());
}

struct ModelTime {
    start: Instant,
    passed: Duration,
    /// The sleeping threads, and the end of each sleep.
    sleeps: Vec<(TaskId, Duration)>,
    /// How many sleeps have lasted to their end.
    ended: usize,
    /// Whether time stands still while any thread can run.
    is_timely: bool,
}

impl ModelTime {
    fn new() -> ModelTime {
        ModelTime {
            start: Instant::now(),
            passed: Duration::ZERO,
            sleeps: Vec::new(),
            ended: 0,
            is_timely: true,
        }
    }

    /// Returns the end of the sleep of a thread; `None` if the thread is awake or the end has
    /// passed.
    fn end(&self, task: TaskId) -> Option<Duration> {
        let sleep = self.sleeps.iter().find(|(sleeper, _)| *sleeper == task);
        let end = sleep.map(|(_, end)| *end);
        end.filter(|end| *end > self.passed)
    }
}

fn with_time<T>(f: impl FnOnce(&mut ModelTime) -> T) -> T {
    TIME.with(|time| f(&mut time.borrow_mut()))
}

/// Returns the time of the machine's monotonic clock in a model.
pub(crate) fn now() -> Instant {
    with_time(|time| time.start + time.passed)
}

/// Returns how much time has passed in this run of the model.
pub(crate) fn passed() -> Duration {
    with_time(|time| time.passed)
}

/// Whether time stands still while any thread can run.
pub(crate) fn is_timely() -> bool {
    with_time(|time| time.is_timely)
}

/// Moves the time of the model forward.
pub(crate) fn pass(duration: Duration) {
    with_time(|time| time.passed += duration);
}

/// Blocks for `duration`, with nothing that could end the sleep early.
pub(crate) fn sleep(duration: Duration) {
    let (condvar, lock) = (Condvar::new(), Mutex::new(()));
    let guard = lock.lock().expect("no other thread knows this lock");
    drop(condvar.wait_timeout(guard, duration));
}

/// A mutex whose guard knows it, so that a condition variable can lock it again.
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

/// A condition variable whose waits end in the time of the model. The condition variables of
/// `shuttle` never time out.
#[derive(Default)]
pub(crate) struct Condvar {
    waiters: StdMutex<Vec<Arc<CondvarWaiter>>>,
}

struct CondvarWaiter {
    task: TaskId,
    is_notified: AtomicBool,
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(guard, NEVER)
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

    /// Blocks until a notification or until `end`: a thread that the scheduler runs before it is
    /// notified has slept until `end`.
    fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        end: Duration,
    ) -> LockResult<MutexGuard<'a, T>> {
        let mutex = guard.mutex;
        let waiter = Arc::new(CondvarWaiter {
            task: current::me(),
            is_notified: AtomicBool::new(false),
        });
        self.waiters().push(Arc::clone(&waiter));
        // The scheduler may switch before the release, but not after it: no notification is lost.
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
        schedule();
        let first = self.waiters().first().cloned();
        if let Some(first) = first {
            self.notify(&first);
        }
    }

    pub(crate) fn notify_all(&self) {
        schedule();
        let all = self.waiters().clone();
        all.iter().for_each(|waiter| self.notify(waiter));
    }

    fn notify(&self, waiter: &Arc<CondvarWaiter>) {
        self.leave(waiter);
        waiter.is_notified.store(true, Ordering::SeqCst);
        with_time(|time| time.sleeps.retain(|(task, _)| *task != waiter.task));
    }

    fn leave(&self, waiter: &Arc<CondvarWaiter>) {
        self.waiters().retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// Locks the list; the lock is never held at a scheduling point.
    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<Arc<CondvarWaiter>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar")
    }
}

/// The end of a sleep that only a notification ends.
const NEVER: Duration = Duration::MAX;

/// Lets the scheduler choose another thread.
fn schedule() {
    thread::sleep(Duration::ZERO);
}

/// Lets another scheduler choose among the threads that are awake, or among the threads that wake
/// up next if all sleep; without `is_timely`, among all threads whose sleep can end.
struct TimelyScheduler {
    scheduler: Box<dyn Scheduler + Send>,
    is_timely: bool,
}

impl Scheduler for TimelyScheduler {
    fn new_execution(&mut self) -> Option<Schedule> {
        with_time(|time| {
            *time = ModelTime::new();
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
        // A thread that is awake comes before all sleeping threads: `None` is less than any end.
        let first = runnable.iter().map(end).min().flatten();
        assert_ne!(
            first,
            Some(NEVER),
            "deadlock: all threads wait without an end"
        );
        // After many early ends, time stands still: a thread that polls could keep the others from
        // running forever.
        let is_timely = self.is_timely || with_time(|time| time.ended) > MAX_EARLY_ENDS;
        let may_run = |task: &&Task| match is_timely {
            true => end(task) == first,
            false => end(task) != Some(NEVER),
        };
        let candidates: Vec<&Task> = runnable.iter().copied().filter(may_run).collect();
        self.scheduler.next_task(&candidates, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.scheduler.next_u64()
    }
}

/// After so many ends of sleeps, time stands still while any thread can run.
const MAX_EARLY_ENDS: usize = 12;

/// A scheduler that tries all orders with at most `preemptions` preemptions, depth first.
struct ExhaustiveScheduler {
    preemptions: usize,
    /// The preemptions left in this run.
    preemptions_left: usize,
    runs_left: usize,
    /// The choices of this run; its first steps repeat those of the previous run.
    path: Vec<Choice>,
    step: usize,
    /// The next "random" number, the same in each run.
    random: u64,
}

/// The choice made at a step.
struct Choice {
    index: usize,
    /// How many choices the step has.
    count: usize,
}

impl ExhaustiveScheduler {
    fn new(preemptions: usize, runs: usize) -> ExhaustiveScheduler {
        ExhaustiveScheduler {
            preemptions,
            preemptions_left: 0,
            runs_left: runs,
            path: Vec::new(),
            step: 0,
            random: 0,
        }
    }
}

impl Scheduler for ExhaustiveScheduler {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.step > 0 {
            let is_last = |choice: &Choice| choice.index + 1 == choice.count;
            while self.path.last().is_some_and(is_last) {
                self.path.pop();
            }
            self.path.last_mut()?.index += 1;
        }
        if self.runs_left == 0 {
            return None;
        }
        self.runs_left -= 1;
        self.preemptions_left = self.preemptions;
        (self.step, self.random) = (0, 0);
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
        // The first choice is the thread that runs now.
        let choices = match current {
            Some(_) if self.preemptions_left == 0 => 1,
            _ => runnable.len(),
        };
        if self.path.len() == self.step {
            self.path.push(Choice {
                index: 0,
                count: choices,
            });
        }
        let Choice { index, count } = self.path[self.step];
        assert_eq!(
            count, choices,
            "the model behaves differently in another run"
        );
        self.step += 1;
        let first = current.unwrap_or(0);
        self.preemptions_left -= usize::from(current.is_some() && index > 0);
        Some(runnable[(first + index) % runnable.len()].id())
    }

    fn next_u64(&mut self) -> u64 {
        self.random += 1;
        self.random
    }
}
