//! Tickets in order: who waits, who of them sleeps to a time, who is woken.
//!
//! Each class has a lane. Only the head of a lane sleeps to a computed time; the others sleep until
//! the one before them hands on the baton. Each grant so wakes two: the head, whose time has come,
//! and its successor, which becomes the head.

use crate::sync::Condvar;
use crate::types::WaitCause;

use std::collections::VecDeque;
use std::sync::Arc;

use super::account::Account;
use super::cost::{Cost, Time};
use super::entries::Key;
use super::gate::Gate;
use super::ruling::Later;

/// The requests of one class: its account, and those who wait.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) account: Account,
    waiters: VecDeque<Arc<Waiter>>,
    next_ticket: u64,
    /// What the head sleeps to; `None` where it waits for an event, or has not looked yet.
    head_until: Option<Time>,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) cost: Cost,
    pub(super) wake: Condvar,
}

impl Lane {
    pub(super) fn new(account: Account) -> Lane {
        Lane {
            account,
            waiters: VecDeque::new(),
            next_ticket: 0,
            head_until: None,
        }
    }

    /// The number under which a request keeps its place, also when it comes back refused.
    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Whether a request with this ticket need not wait for others.
    pub(super) fn is_next(&self, ticket: u64) -> bool {
        self.waiters
            .front()
            .is_none_or(|head| ticket <= head.ticket)
    }

    /// Takes a place in the order of the tickets.
    pub(super) fn enter(&mut self, ticket: u64, cost: Cost) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter {
            ticket,
            cost,
            wake: Condvar::new(),
        });
        let place = self.waiters.partition_point(|other| other.ticket < ticket);
        if place == 0 {
            self.head_until = None;
        }
        self.waiters.insert(place, Arc::clone(&waiter));
        waiter
    }

    /// Gives up a place; if it was the first, the next one gets the baton.
    pub(super) fn leave(&mut self, waiter: &Waiter) {
        let Some(place) = self
            .waiters
            .iter()
            .position(|other| other.ticket == waiter.ticket)
        else {
            return;
        };
        self.waiters.remove(place);
        if place == 0 {
            self.head_until = None;
            self.wake_head();
        }
    }

    /// Takes a waiter in if it is its turn and there is room. Otherwise, if it is the head, what
    /// it will sleep to is noted.
    pub(super) fn turn(
        &mut self,
        waiter: &Waiter,
        now: Time,
        gate: &mut Gate,
    ) -> Result<Key, Later> {
        if !self.is_next(waiter.ticket) {
            let head = self.head_outlook(now, gate);
            return Err(Later::OnEvent(
                head.map_or(WaitCause::Turn, |(_, cause)| cause),
            ));
        }
        let result = self.account.try_admit(now, &waiter.cost, gate);
        self.head_until = match result {
            Err(Later::NotBefore(time, _)) => Some(time),
            _ => None,
        };
        result
    }

    /// Wakes the head if it can go earlier than it thinks.
    pub(super) fn wake_if_better(&mut self, now: Time, gate: &mut Gate) {
        let Some(head) = self.waiters.front() else {
            return;
        };
        let better = match self.account.outlook(now, &head.cost, gate) {
            Ok(()) | Err(Later::Never(_)) => true,
            Err(Later::NotBefore(time, _)) => self
                .head_until
                .is_none_or(|until| time + WORTH_WAKING < until),
            Err(Later::OnEvent(_)) => false,
        };
        if better {
            self.wake_head();
        }
    }

    pub(super) fn wake_head(&self) {
        if let Some(head) = self.waiters.front() {
            head.wake.notify_one();
        }
    }

    pub(super) fn wake_all(&self) {
        for waiter in &self.waiters {
            waiter.wake.notify_one();
        }
    }

    /// What those who wait ask for, in their order.
    pub(super) fn costs(&self) -> impl Iterator<Item = Cost> + '_ {
        self.waiters.iter().map(|waiter| waiter.cost)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// The earliest time at which a request could go that stands behind the tickets below its own.
    pub(super) fn at_best(&mut self, now: Time, ticket: u64, cost: &Cost, gate: &mut Gate) -> Time {
        let mut queued = [0.0; 3];
        let before = self.waiters.iter();
        for other in before.take_while(|other| other.ticket < ticket) {
            // By what is known now, not by what was when it came.
            let expected = self.account.expected(&other.cost);
            for (sum, expected) in queued.iter_mut().zip(expected) {
                *sum += expected;
            }
        }
        let gate = gate.hold().unwrap_or(now);
        self.account.at_best(now, &queued, cost).max(gate)
    }

    /// Until when the server has refused all requests, and why.
    pub(super) fn refused_until(&self, now: Time, gate: &Gate) -> Option<(Time, WaitCause)> {
        let pause = (self.account.pause(), WaitCause::Pause);
        let hold = gate.hold().map(|hold| (hold, WaitCause::Overload));
        let all = [Some(pause), hold].into_iter().flatten();
        let later = all.filter(|(time, _)| *time > now);
        later.max_by(|(one, _), (other, _)| one.total_cmp(other))
    }

    /// What a request would wait for that stands behind the tickets below its own.
    pub(super) fn cause_for(
        &mut self,
        now: Time,
        ticket: u64,
        cost: &Cost,
        gate: &mut Gate,
    ) -> WaitCause {
        let head = match self.is_next(ticket) {
            true => outlook(&mut self.account, now, cost, gate),
            false => self.head_outlook(now, gate),
        };
        head.map_or(WaitCause::Turn, |(_, cause)| cause)
    }

    /// Until when the head waits, where that is known, and what for; `None` if nobody waits or the
    /// head may go.
    pub(super) fn head_outlook(
        &mut self,
        now: Time,
        gate: &mut Gate,
    ) -> Option<(Option<Time>, WaitCause)> {
        let head = self.waiters.front()?;
        outlook(&mut self.account, now, &head.cost, gate)
    }
}

fn outlook(
    account: &mut Account,
    now: Time,
    cost: &Cost,
    gate: &mut Gate,
) -> Option<(Option<Time>, WaitCause)> {
    match account.outlook(now, cost, gate) {
        Err(Later::NotBefore(time, cause)) => Some((Some(time), cause)),
        Err(Later::OnEvent(cause)) => Some((None, cause)),
        Ok(()) | Err(Later::Never(_)) => None,
    }
}

/// Half a millisecond: less is not worth a thread's wake-up.
const WORTH_WAKING: Time = 0.0005;
