//! The audit: the callers' results, the server's record and the client's totals must agree.

use std::collections::{BTreeMap, HashMap};

use anthropic_blocking::testing::TestServer;
use anthropic_blocking::{Attempt, Delivery, ErrorKind, Tokens, Totals};

use super::calls::{Call, Flag, Got, Outcome, Way};
use super::faults::{Effect, Fault, FaultPlan, request_id};
use super::report::Report;
use super::table::CLOSED_SILENTLY;
use super::{MOST_ATTEMPTS, MOST_INPUT, MOST_OUTPUT, lock};

/// Compares the callers' results of one round with what the server did.
pub struct Audit<'a> {
    report: &'a mut Report,
    plan: &'a FaultPlan,
    outcomes: &'a [Outcome],
    sums: Sums,
}

/// Sums of the callers' results, and by how much they may fall short of what happened.
#[derive(Default)]
pub struct Sums {
    calls: u64,
    failed: u64,
    attempts: u64,
    rate_limited: u64,
    overloaded: u64,
    tokens: [u64; 2],
    /// How many connections the server closed silently, and how many attempts were lost on them.
    closed: u64,
    lost: u64,
    /// Attempts of `count_tokens` that may have timed out before they arrived.
    vague: u64,
    /// Calls and attempts that were cut with their run: their callers know nothing of them.
    cut: u64,
    cut_attempts: u64,
    /// Upper bounds of the tokens that broken responses may have used.
    broken: [u64; 2],
    /// The server's limit mode: responses, the tokens they used, refusals.
    admitted: u64,
    charged: [u64; 2],
    limited: u64,
    overloads: u64,
}

impl<'a> Audit<'a> {
    pub fn new(report: &'a mut Report, plan: &'a FaultPlan, outcomes: &'a [Outcome]) -> Audit<'a> {
        Audit {
            report,
            plan,
            outcomes,
            sums: Sums::default(),
        }
    }

    /// Checks each attempt of each call against the request that arrived for it.
    pub fn attempts(&mut self) {
        let mut faults_met: HashMap<u64, Vec<usize>> = HashMap::new();
        for shard in &self.plan.faults_met {
            faults_met.extend(std::mem::take(&mut *lock(shard)));
        }
        let count = |faults: &mut BTreeMap<String, u64>, met: &[usize], plan: &FaultPlan| {
            for fault in met {
                *faults.entry(plan.faults[*fault].name.clone()).or_default() += 1;
            }
        };
        let is_closing = |fault: &&usize| self.plan.faults[**fault].name == CLOSED_SILENTLY;
        self.sums.closed = faults_met.values().flatten().filter(is_closing).count() as u64;
        let mut seen = HashMap::new();
        for outcome in self.outcomes {
            let call = outcome.call;
            if seen.insert(call.number, ()).is_some() {
                self.report
                    .complain(format!("{call:?}: it came back twice"));
            }
            let met = faults_met.remove(&call.number).unwrap_or_default();
            count(&mut self.report.faults, &met, self.plan);
            if let Err(complaint) = self.check(outcome, &met) {
                let names: Vec<&str> = met.iter().map(|f| &*self.plan.faults[*f].name).collect();
                self.report
                    .complain(format!("{call:?}: {complaint}, after {names:?}"));
            }
        }
        let (lost, closed) = (self.sums.lost, self.sums.closed);
        self.report.lost += lost;
        self.report.check(lost <= closed, || {
            format!("{lost} requests never arrived, and {closed} connections were closed")
        });
        for (number, met) in faults_met {
            count(&mut self.report.faults, &met, self.plan);
            // The server may still read requests that were given up in the round before.
            let is_late = met
                .iter()
                .all(|fault| self.plan.faults[*fault].effect == Effect::Stalled);
            self.report.late += u64::from(is_late);
            self.report
                .check(is_late, || format!("no call sent {number}"));
        }
    }

    fn check(&mut self, outcome: &Outcome, met: &[usize]) -> Result<(), String> {
        let Outcome {
            call,
            attempts,
            got,
        } = outcome;
        let sums = &mut self.sums;
        self.report.count(outcome, met.len());
        match got {
            Got::Wrong(complaint) => return Err(complaint.clone()),
            Got::Cut => {
                sums.cut += 1;
                sums.cut_attempts += met.len() as u64;
                sums.broken = [sums.broken[0] + MOST_INPUT, sums.broken[1] + MOST_OUTPUT];
                return Ok(());
            }
            Got::Error(ErrorKind::NotRun, _) => {
                let may_be = matches!(call.way, Way::Run | Way::Map);
                // The request may have been queued when the run was stopped: then it counts as a
                // call.
                sums.cut += 1;
                return match may_be && met.is_empty() {
                    true => Ok(()),
                    false => Err("not run".to_owned()),
                };
            }
            _ => {}
        }
        sums.calls += 1;
        sums.failed += u64::from(matches!(got, Got::Error(..)));
        sums.rate_limited += count_of(attempts, ErrorKind::RateLimit);
        sums.overloaded += count_of(attempts, ErrorKind::Overloaded);
        let faults: Vec<&Fault> = met.iter().map(|fault| &self.plan.faults[*fault]).collect();
        if let Got::Counted = got {
            // `count_tokens` does not return its attempts: they must be those that the server saw.
            let (last, before) = faults.split_last().ok_or("no count arrived")?;
            let is_again = before.iter().any(|fault| fault.effect == Effect::Served);
            if last.effect != Effect::Served || is_again && !call.flag.is_hasty() {
                return Err("it was counted at a fault".to_owned());
            }
            sums.vague += u64::from(call.flag.is_hasty()) * MOST_ATTEMPTS;
            let failures = before.iter().map(|fault| match fault.effect {
                Effect::Failed(_, _, kinds) => Some(kinds[0]),
                _ => None,
            });
            for kind in failures.flatten() {
                sums.rate_limited += u64::from(kind == ErrorKind::RateLimit);
                sums.overloaded += u64::from(kind == ErrorKind::Overloaded);
            }
            sums.attempts += faults.len() as u64;
            return Ok(());
        }
        sums.attempts += attempts.len() as u64;
        if let Got::Error(kind, text) = got {
            let last = attempts.last().and_then(|attempt| attempt.failure);
            let may_be_late = matches!(kind, ErrorKind::Timeout | ErrorKind::Budget);
            let may_wait = matches!(kind, ErrorKind::RateLimit | ErrorKind::Overloaded);
            let is_explained = last == Some(*kind)
                || call.flag == Flag::Deadline && (may_be_late || attempts.is_empty() && may_wait)
                || call.flag == Flag::Impatient && attempts.is_empty() && may_wait;
            if !is_explained {
                return Err(format!("no attempt explains {text}"));
            }
        }
        let is_last_failed = attempts
            .last()
            .is_some_and(|attempt| attempt.failure.is_some());
        let is_error = matches!(got, Got::Error(..));
        if !is_error && (is_last_failed || attempts.is_empty()) {
            return Err(format!("a response after {attempts:?}"));
        }
        if attempts
            .iter()
            .rev()
            .skip(1)
            .any(|attempt| attempt.failure.is_none())
        {
            return Err("a success was not the end".to_owned());
        }
        let unsent = attempts.len() as u64 - count_sent(attempts);
        if unsent != u64::from(call.way == Way::Large) && !call.flag.is_hasty() {
            return Err(format!("{unsent} attempts were not sent"));
        }
        let sent: Vec<&Attempt> = attempts
            .iter()
            .filter(|attempt| attempt.delivery != Delivery::NotSent)
            .collect();
        let lost = match call.flag.is_hasty() {
            true => Vec::new(),
            false => find_lost_attempts(*call, &sent, &faults, 0).ok_or_else(|| {
                format!("{} requests arrived, of those sent: {sent:?}", faults.len())
            })?,
        };
        sums.lost += lost.len() as u64;
        let mut arrived = faults.iter().enumerate();
        for (number, attempt) in sent.into_iter().enumerate() {
            if lost.contains(&number) {
                continue;
            }
            let is_timeout = attempt.failure == Some(ErrorKind::Timeout);
            if call.flag.is_hasty() && is_timeout && attempt.delivery == Delivery::Unknown {
                // The server may have read the request or not, and have sent any response.
                continue;
            }
            let is_it = |(turn, fault): &(usize, &&Fault)| {
                explains(fault, *call, *turn as u64, attempt).is_ok()
            };
            let next = match call.flag.is_hasty() {
                true => {
                    let mut ahead = arrived.clone();
                    ahead.find(is_it).inspect(|_| arrived = ahead)
                }
                false => arrived.next(),
            };
            let Some((turn, fault)) = next else {
                if call.flag.is_hasty() && may_be_lost(attempt) {
                    sums.lost += 1;
                    continue;
                }
                return Err(format!("nothing arrived for {attempt:?}"));
            };
            explains(fault, *call, turn as u64, attempt)?;
            let is_used = attempt.status == Some(200);
            if attempt.failure.is_some() && is_used || matches!(got, Got::Half) {
                sums.broken = [sums.broken[0] + MOST_INPUT, sums.broken[1] + MOST_OUTPUT];
            }
            if fault.effect == Effect::Limited {
                match attempt.failure {
                    None => sums.admitted += 1,
                    Some(ErrorKind::Overloaded) => sums.overloads += 1,
                    Some(_) => sums.limited += 1,
                }
            }
        }
        if let Got::Message { usage, is_canned } = got {
            let should_be = faults
                .last()
                .is_some_and(|fault| fault.effect == Effect::Limited);
            if *is_canned != should_be {
                return Err("the response to another attempt".to_owned());
            }
            for (d, used) in usage.iter().enumerate() {
                sums.tokens[d] += used;
                sums.charged[d] += if *is_canned { *used } else { 0 };
            }
        }
        Ok(())
    }

    /// Checks the client's totals against the callers' results.
    pub fn totals(&mut self, before: &Totals, after: &Totals) {
        let (before, after) = (&before.all, &after.all);
        let sums = &self.sums;
        let tokens = |tokens: &Tokens| [tokens.input, tokens.output];
        let rows = [
            ("calls", before.calls, after.calls, sums.calls, sums.cut),
            (
                "failed calls",
                before.failed,
                after.failed,
                sums.failed,
                sums.cut,
            ),
            (
                "attempts",
                before.attempts,
                after.attempts,
                sums.attempts,
                sums.cut_attempts + sums.vague + sums.closed - sums.lost.min(sums.closed),
            ),
            (
                "429s",
                before.rate_limited,
                after.rate_limited,
                sums.rate_limited,
                sums.cut_attempts,
            ),
            (
                "529s",
                before.overloaded,
                after.overloaded,
                sums.overloaded,
                sums.cut_attempts,
            ),
            (
                "input",
                tokens(&before.tokens)[0],
                tokens(&after.tokens)[0],
                sums.tokens[0],
                sums.broken[0],
            ),
            (
                "output",
                tokens(&before.tokens)[1],
                tokens(&after.tokens)[1],
                sums.tokens[1],
                sums.broken[1],
            ),
        ];
        for (name, before, after, known, more) in rows {
            let is = after - before;
            let agrees = (known..=known + more).contains(&is);
            self.report.check(agrees, || {
                format!("totals: {is} {name}, should be {known} and at most {more} more")
            });
        }
    }

    /// Checks the ledger of the limit mode against the callers' results; returns the charged
    /// tokens.
    pub fn server_ledger(&mut self, server: &TestServer) -> [u64; 2] {
        let ledger = server.ledger();
        let charged = ledger
            .classes
            .iter()
            .fold([0; 2], |[input, output], class| {
                [
                    input + class.charged.input_tokens,
                    output + class.charged.output_tokens,
                ]
            });
        let sums = &self.sums;
        self.report
            .same("admitted", &sums.admitted, &ledger.admitted());
        self.report
            .same("refused for limits", &sums.limited, &ledger.rate_limited());
        self.report.same(
            "refused as overloaded",
            &sums.overloads,
            &ledger.overloaded(),
        );
        self.report.same("charged", &sums.charged, &charged);
        charged
    }
}

/// Checks that this fault can have led to this attempt.
pub fn explains(fault: &Fault, call: Call, turn: u64, attempt: &Attempt) -> Result<(), String> {
    let Attempt {
        delivery,
        status,
        failure,
        request_id: id,
        ..
    } = attempt;
    let is_explained = match (fault.effect, failure) {
        (Effect::Served, None) => *delivery == Delivery::Responded && *status == Some(200),
        (Effect::Failed(way, code, kinds), Some(kind)) => {
            *delivery == way && *status == code && kinds.contains(kind)
        }
        // The stream was dropped before the fault.
        (Effect::Failed(_, Some(200), _), None) => call.way == Way::Half && *status == Some(200),
        (Effect::Limited, None) => *delivery == Delivery::Responded && *status == Some(200),
        (Effect::Limited, Some(ErrorKind::RateLimit)) => *status == Some(429),
        (Effect::Limited, Some(ErrorKind::Overloaded)) => *status == Some(529),
        _ => false,
    };
    if !is_explained {
        return Err(format!("{:?} does not explain {attempt:?}", fault.name));
    }
    let should_be = match status {
        Some(_) if !fault.name.starts_with("raw") => Some(request_id(call, turn)),
        _ => None,
    };
    let id = id.as_ref().map(ToString::to_string);
    if id != should_be {
        return Err(format!(
            "request id {id:?} of {:?}, should be {should_be:?}",
            fault.name
        ));
    }
    Ok(())
}

/// Returns the indices in `sent` of the attempts that never arrived, because the server had closed
/// their connection silently, if the other attempts explain all faults from `turn` on.
fn find_lost_attempts(
    call: Call,
    sent: &[&Attempt],
    faults: &[&Fault],
    turn: usize,
) -> Option<Vec<usize>> {
    let Some((attempt, rest)) = sent.split_first() else {
        return (turn == faults.len()).then(Vec::new);
    };
    let later = |lost: Vec<usize>| lost.into_iter().map(|number| number + 1);
    if let Some(fault) = faults.get(turn)
        && explains(fault, call, turn as u64, attempt).is_ok()
        && let Some(lost) = find_lost_attempts(call, rest, faults, turn + 1)
    {
        return Some(later(lost).collect());
    }
    let lost = may_be_lost(attempt)
        .then(|| find_lost_attempts(call, rest, faults, turn))
        .flatten()?;
    Some(std::iter::once(0).chain(later(lost)).collect())
}

fn may_be_lost(attempt: &Attempt) -> bool {
    attempt.status.is_none()
        && attempt.delivery == Delivery::Unknown
        && attempt.failure == Some(ErrorKind::Connection)
}

fn count_sent(attempts: &[Attempt]) -> u64 {
    let unsent = attempts
        .iter()
        .filter(|attempt| attempt.delivery == Delivery::NotSent);
    attempts.len() as u64 - unsent.count() as u64
}

fn count_of(attempts: &[Attempt], kind: ErrorKind) -> u64 {
    attempts
        .iter()
        .filter(|attempt| attempt.failure == Some(kind))
        .count() as u64
}
