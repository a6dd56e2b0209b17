//! A simulated run: events in virtual time, the threads of the clients, the network.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use fastrand::Rng;

use crate::budget::cost::{Cost, INPUT, OUTPUT, PerDimension, REQUESTS};
use crate::budget::limiter::class_limiter::ClassLimiter;
use crate::budget::limiter::decision::NotNow;
use crate::budget::limiter::headers::{LimitHeaders, Refusal};
use crate::budget::limiter::overload_gate::OverloadGate;
use crate::budget::limiter::slab::SlabKey;
use crate::budget::limits::Limits;
use crate::types::{Dimension, RateLimits, Usage};

use super::rivals::Rival;
use super::scenario::{Job, Report, Scenario, Storm, Tenant};
use super::server::{Server, ServerRefusal};

/// An event; ordered by time, then by number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Event {
    time: f64,
    number: u64,
    kind: EventKind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum EventKind {
    /// The head of a client's queue tries again.
    Wake(usize),
    /// A job of a rival may be sent.
    Ready(usize, usize),
    Arrive(usize),
    Refuse(usize, ServerRefusal),
    Begin(usize),
    Progress(usize),
    End(usize),
    Foreign,
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Event) -> std::cmp::Ordering {
        let time = self.time.total_cmp(&other.time);
        time.then(self.number.cmp(&other.number))
    }
}

struct Client {
    limiter: ClassLimiter,
    gate: OverloadGate,
    rival: Option<Rival>,
    waiting: BTreeSet<usize>,
    idle: usize,
    wake: f64,
    done: usize,
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
struct Flight {
    client: usize,
    job: usize,
    key: Option<SlabKey>,
    /// When the response begins and ends.
    begins: f64,
    ends: f64,
    /// The headers of the response, where they are those of the request's arrival.
    headers: Option<LimitHeaders>,
}

pub(super) struct World {
    scenario: Scenario,
    server: Server,
    clients: Vec<Client>,
    jobs: Vec<Job>,
    next_job: usize,
    attempts: Vec<usize>,
    waiting_since: Vec<f64>,
    flights: Vec<Flight>,
    events: BinaryHeap<Reverse<Event>>,
    numbers: u64,
    now: f64,
    rng: Rng,
    admitted: Vec<(f64, PerDimension<f64>)>,
    begun_after_storm: usize,
    report: Report,
}

impl Scenario {
    pub(super) fn run(&self) -> Report {
        World::new(self).run()
    }
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> World {
        let mut rng = Rng::with_seed(scenario.seed * 7_919 + 17);
        let jobs: Vec<Job> = (0..scenario.jobs).map(|_| scenario.job(&mut rng)).collect();
        let clients = (0..scenario.clients).map(|_| {
            let mut limiter = ClassLimiter::new(scenario.promise, false, rng.fork());
            if scenario.knows_limits {
                let [requests, input, output] = scenario.limits.map(|limit| limit as u64);
                let limits = Limits::per_minute()
                    .requests(requests)
                    .input_tokens(input)
                    .output_tokens(output);
                limiter.assume_server(0.0, &limits);
            }
            Client {
                limiter,
                gate: OverloadGate::new(rng.fork()),
                rival: scenario.rival.clone(),
                waiting: BTreeSet::new(),
                idle: scenario.threads / scenario.clients,
                wake: f64::INFINITY,
                done: 0,
            }
        });
        World {
            clients: clients.collect(),
            server: Server::new(scenario, rng.fork()),
            attempts: vec![0; jobs.len()],
            waiting_since: vec![0.0; jobs.len()],
            jobs,
            next_job: 0,
            flights: Vec::new(),
            events: BinaryHeap::new(),
            numbers: 0,
            now: 0.0,
            rng,
            admitted: Vec::new(),
            begun_after_storm: 0,
            report: Report::default(),
            scenario: scenario.clone(),
        }
    }

    pub(super) fn run(mut self) -> Report {
        if let Tenant::Random(_) = self.scenario.tenant {
            self.schedule_in(0.0, EventKind::Foreign);
        }
        for client in 0..self.clients.len() {
            self.start_jobs(client);
        }
        while let Some(Reverse(event)) = self.events.pop() {
            self.now = event.time;
            assert!(self.now < 1e6, "the run hangs");
            self.handle(event.kind);
            let done: usize = self.clients.iter().map(|client| client.done).sum();
            if done + self.report.lost == self.jobs.len() {
                break;
            }
        }
        self.finish()
    }

    fn schedule_in(&mut self, wait: f64, kind: EventKind) {
        self.schedule_at(self.now + wait, kind);
    }

    fn schedule_at(&mut self, time: f64, kind: EventKind) {
        self.numbers += 1;
        let number = self.numbers;
        self.events.push(Reverse(Event { time, number, kind }));
    }

    fn handle(&mut self, kind: EventKind) {
        match kind {
            EventKind::Wake(client) => {
                if self.clients[client].wake <= self.now {
                    self.admit_waiting(client);
                }
            }
            EventKind::Ready(client, job) => self.send_of_rival(client, job),
            EventKind::Arrive(flight) => self.arrive(flight),
            EventKind::Refuse(flight, refusal) => self.refuse(flight, refusal),
            EventKind::Begin(flight) => self.begin(flight),
            EventKind::Progress(flight) => self.progress(flight),
            EventKind::End(flight) => self.end(flight),
            EventKind::Foreign => {
                let job = self.scenario.job(&mut self.rng);
                self.server.foreign(self.now, &job);
                let mean = mean_cost(&self.jobs);
                let per_second = (0..3)
                    .map(|d| self.scenario.rate(d) * self.scenario.tenant.mean() / mean[d])
                    .fold(f64::INFINITY, f64::min);
                let wait = -(1.0 - self.rng.f64()).ln() / per_second;
                self.schedule_in(wait, EventKind::Foreign);
            }
        }
    }

    /// Gives the idle threads their next jobs.
    fn start_jobs(&mut self, client: usize) {
        while self.clients[client].idle > 0 && self.next_job < self.jobs.len() {
            let job = self.next_job;
            self.next_job += 1;
            self.waiting_since[job] = self.now;
            self.clients[client].idle -= 1;
            if self.clients[client].rival.is_some() {
                self.send_of_rival(client, job);
            } else {
                self.clients[client].waiting.insert(job);
            }
        }
        self.admit_waiting(client);
    }

    /// Admits jobs from the head of the queue, until one must wait.
    fn admit_waiting(&mut self, at: usize) {
        loop {
            let client = &mut self.clients[at];
            client.wake = f64::INFINITY;
            let Some(job) = client.waiting.first().copied() else {
                return;
            };
            let cost = Cost::request()
                .input_bytes(self.jobs[job].guess)
                .max_tokens(self.jobs[job].max_tokens);
            self.report.decisions += 1;
            match client.limiter.try_admit(self.now, &cost, &mut client.gate) {
                Ok(key) => {
                    client.waiting.pop_first();
                    let waited = self.now - self.waiting_since[job];
                    self.report.longest_wait = self.report.longest_wait.max(waited);
                    self.send(at, job, Some(key));
                }
                Err(NotNow::NotBefore(time, _)) => {
                    assert!(time > self.now, "the run spins");
                    client.wake = time;
                    self.schedule_at(time, EventKind::Wake(at));
                    return;
                }
                Err(NotNow::OnEvent(_)) => return,
                Err(NotNow::Never(_)) => {
                    client.waiting.pop_first();
                    self.report.lost += 1;
                    client.idle += 1;
                }
            }
        }
    }

    fn send(&mut self, client: usize, job: usize, key: Option<SlabKey>) {
        let truth = &self.jobs[job];
        let cost = [1.0, truth.input as f64, truth.output as f64];
        self.admitted.push((self.now, cost));
        if let Some(Storm { from, to, .. }) = self.scenario.storm {
            self.report.sent_in_storm += usize::from((from..to).contains(&self.now));
        }
        self.flights.push(Flight {
            client,
            job,
            key,
            begins: 0.0,
            ends: 0.0,
            headers: None,
        });
        let uplink = 0.02 + 0.1 * self.rng.f64();
        self.schedule_in(uplink, EventKind::Arrive(self.flights.len() - 1));
    }

    fn arrive(&mut self, flight: usize) {
        let job = self.jobs[self.flights[flight].job];
        match self.server.arrive(self.now, &job) {
            Err(refusal) => {
                let wait = 0.1 + 0.2 * self.rng.f64();
                self.schedule_in(wait, EventKind::Refuse(flight, refusal));
            }
            Ok(()) => {
                let first = match self.scenario.has_slow_headers {
                    true => 0.1 * job.service,
                    false => (0.2 * job.service).min(1.0),
                };
                let flying = &mut self.flights[flight];
                flying.begins = self.now + first;
                flying.ends = self.now + job.service;
                if self.scenario.has_slow_headers {
                    let headers = self.server.headers(self.now, None);
                    flying.headers = Some(LimitHeaders::of(&headers));
                }
                self.schedule_at(self.now + first, EventKind::Begin(flight));
            }
        }
    }

    fn refuse(&mut self, flight: usize, refusal: ServerRefusal) {
        let Flight {
            client: at,
            job,
            key,
            ..
        } = self.flights[flight];
        let wait = match refusal {
            ServerRefusal::Limit(_, wait) => Some(wait),
            ServerRefusal::Growth => Some(5.0),
            ServerRefusal::Overloaded => None,
        };
        let headers = match refusal {
            ServerRefusal::Overloaded => RateLimits::default(),
            _ => self.server.headers(self.now, wait),
        };
        match refusal {
            ServerRefusal::Overloaded => self.report.overloaded += 1,
            _ => self.report.refused += 1,
        }
        let Some(key) = key else {
            return self.rival_refused(at, job, headers.retry_after.map(|wait| wait.as_secs_f64()));
        };
        // A refused request counts as a request, without tokens.
        self.admitted[flight].1 = [1.0, 0.0, 0.0];
        let client = &mut self.clients[at];
        let (limiter, gate) = (&mut client.limiter, &mut client.gate);
        let refusal = match refusal {
            ServerRefusal::Limit(..) if self.scenario.explains_nothing => Refusal::Unexplained,
            ServerRefusal::Limit(d, _) => Refusal::Limit(Some(Dimension::ALL[d]), None),
            ServerRefusal::Growth => Refusal::Growth,
            ServerRefusal::Overloaded => {
                limiter.record_overload(self.now, key, None, gate);
                client.waiting.insert(job);
                return self.admit_waiting(at);
            }
        };
        limiter.record_refusal(self.now, key, refusal, &LimitHeaders::of(&headers), gate);
        client.waiting.insert(job);
        self.admit_waiting(at);
    }

    fn begin(&mut self, flight: usize) {
        let Flight {
            client: at,
            job,
            key,
            begins,
            ends,
            headers,
        } = self.flights[flight];
        let job = self.jobs[job];
        let duration = (ends - begins).max(1e-3);
        self.server
            .start_output(self.now, job.output as f64 / duration);
        if self.scenario.storm.is_some_and(|storm| self.now > storm.to) {
            self.begun_after_storm += 1;
            if self.begun_after_storm == 10 {
                let to = self.scenario.storm.map_or(0.0, |storm| storm.to);
                self.report.tenth_after = self.now - to;
            }
        }
        self.schedule_at(begins + duration, EventKind::End(flight));
        if let Some(key) = key {
            let headers = headers.unwrap_or_else(|| {
                let headers = self.server.headers(self.now, None);
                LimitHeaders::of(&headers)
            });
            let client = &mut self.clients[at];
            client.limiter.learn_from_headers(self.now, key, &headers);
            let usage = usage(job.input, 1);
            client
                .limiter
                .record_start(self.now, key, &usage, &mut client.gate);
            if duration > 1.0 {
                self.schedule_in(1.0, EventKind::Progress(flight));
            }
            self.admit_waiting(at);
        }
    }

    fn progress(&mut self, flight: usize) {
        let Flight {
            client: at,
            job,
            key,
            begins,
            ends,
            ..
        } = self.flights[flight];
        let produced = self.jobs[job].output as f64 * (self.now - begins) / (ends - begins);
        if let Some(key) = key {
            let limiter = &mut self.clients[at].limiter;
            limiter.record_output(self.now, key, produced as u64);
            if self.now + 1.0 < ends {
                self.schedule_in(1.0, EventKind::Progress(flight));
            }
        }
    }

    fn end(&mut self, flight: usize) {
        let Flight {
            client: at,
            job: index,
            key,
            begins,
            ends,
            ..
        } = self.flights[flight];
        let job = self.jobs[index];
        let duration = (ends - begins).max(1e-3);
        self.server
            .end_output(self.now, job.output as f64 / duration, &job);
        let client = &mut self.clients[at];
        client.done += 1;
        client.idle += 1;
        if let Some(key) = key {
            let usage = usage(job.input, job.output);
            client
                .limiter
                .settle(self.now, key, &usage, &mut client.gate);
        } else if let Some(rival) = &mut client.rival {
            rival.finished(self.now, job.input);
        }
        self.start_jobs(at);
    }

    fn send_of_rival(&mut self, at: usize, job: usize) {
        let input = self.jobs[job].guess as f64 / 3.5;
        let limits = self.scenario.limits;
        let rival = self.clients[at].rival.as_mut().expect("a rival's job");
        match rival.wait_before_sending(self.now, input, &limits) {
            None => self.send(at, job, None),
            Some(wait) => self.schedule_in(wait, EventKind::Ready(at, job)),
        }
    }

    fn rival_refused(&mut self, at: usize, job: usize, retry_after: Option<f64>) {
        let attempts = self.attempts[job];
        self.attempts[job] += 1;
        let rival = self.clients[at].rival.as_ref().expect("a rival's job");
        match rival.backoff(attempts, retry_after, &mut self.rng) {
            Some(wait) => self.schedule_in(wait, EventKind::Ready(at, job)),
            None => {
                self.report.lost += 1;
                self.clients[at].idle += 1;
                self.start_jobs(at);
            }
        }
    }

    fn finish(mut self) -> Report {
        self.report.makespan = self.now;
        let share = 1.0 - self.scenario.tenant.mean();
        let mut allowed = self.scenario.limits.map(|limit| limit * share);
        for dimension in Dimension::ALL {
            if let Some(limit) = self.scenario.promise.of(dimension) {
                let d = dimension.index();
                allowed[d] = allowed[d].min(limit as f64);
            }
        }
        let mut ideal: f64 = 0.0;
        for (d, allowed) in allowed.into_iter().enumerate() {
            let demand: f64 = self.jobs.iter().map(|job| job.cost()[d]).sum();
            ideal = ideal.max(demand / allowed * 60.0);
        }
        self.report.ratio = self.now / ideal;
        for d in 0..3 {
            let limit = match self.scenario.promise.of(Dimension::ALL[d]) {
                Some(limit) => limit as f64,
                None => self.scenario.limits[d],
            };
            self.report.admitted[d] = worst_minute(&self.admitted, d, limit).0;
            let (worst, above) = worst_minute(&self.server.charges, d, limit);
            (self.report.charged[d], self.report.above[d]) = (worst, above / self.now);
        }
        self.report.shares = self.clients.iter().map(|client| client.done).collect();
        self.report.conserved = self
            .clients
            .iter_mut()
            .all(|client| client.rival.is_some() || client.limiter.is_at_rest(self.now));
        if let [client] = self.clients.as_mut_slice() {
            let first = ((self.now * 4.0).floor() - 240.0) / 4.0;
            let left = self.admitted.iter().filter(|(time, _)| *time >= first);
            let sums = left.fold([0; 3], |sums, (_, cost)| {
                [REQUESTS, INPUT, OUTPUT].map(|d| sums[d] + cost[d] as u64)
            });
            let used = client.limiter.view(self.now).used;
            self.report.conserved &= client.rival.is_some() || sums == used;
        }
        self.report
    }
}

fn usage(input: u64, output: u64) -> Usage {
    Usage {
        input_tokens: input,
        output_tokens: output,
        ..Usage::default()
    }
}

fn mean_cost(jobs: &[Job]) -> PerDimension<f64> {
    [REQUESTS, INPUT, OUTPUT]
        .map(|d| jobs.iter().map(|job| job.cost()[d]).sum::<f64>() / jobs.len() as f64)
}

/// Returns the largest sum of 60 s over `limit`, and the seconds for which that was above 1.
fn worst_minute(log: &[(f64, PerDimension<f64>)], d: usize, limit: f64) -> (f64, f64) {
    let (mut worst, mut sum, mut above): (f64, f64, f64) = (0.0, 0.0, 0.0);
    let mut oldest = 0;
    for (place, (time, cost)) in log.iter().enumerate() {
        while log[oldest].0 <= time - 60.0 {
            sum -= log[oldest].1[d];
            oldest += 1;
        }
        sum += cost[d];
        worst = worst.max(sum / limit);
        if sum > limit {
            let next = log.get(place + 1).map_or(*time, |(next, _)| *next);
            above += next - time;
        }
    }
    (worst, above)
}
