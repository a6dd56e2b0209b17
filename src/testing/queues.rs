//! The replies that a test has scripted, in the queues from which requests take them.

use std::collections::VecDeque;

use super::reply::{InjectedFault, Reply};

/// The general queue of replies, and those for one method and path.
#[derive(Default)]
pub(super) struct ReplyQueues {
    general: VecDeque<Reply>,
    routes: Vec<Route>,
}

impl ReplyQueues {
    pub(super) fn push(&mut self, reply: Reply) {
        self.general.push_back(reply);
    }

    /// Adds a reply to the queue of a method and path.
    pub(super) fn push_for(&mut self, method: &str, path: &str, reply: Reply) {
        let mut routes = self.routes.iter_mut();
        match routes.find(|route| route.is(method, path)) {
            Some(route) => route.queue.push_back(reply),
            None => self.routes.push(Route {
                method: method.to_owned(),
                path: path.to_owned(),
                queue: VecDeque::from([reply]),
            }),
        }
    }

    /// Takes the reply for a request: the queue of its method and path goes first.
    pub(super) fn take(&mut self, method: &str, path: &str) -> Option<Reply> {
        let mut routes = self.routes.iter_mut();
        routes
            .find(|route| route.is(method, path))
            .and_then(|route| route.queue.pop_front())
            .or_else(|| self.general.pop_front())
    }

    /// Returns whether the next reply for this request leaves the body of the request unread.
    pub(super) fn leaves_body_unread(&self, method: &str, path: &str) -> bool {
        let mut routes = self.routes.iter();
        routes
            .find(|route| route.is(method, path))
            .and_then(|route| route.queue.front())
            .or_else(|| self.general.front())
            .is_some_and(|reply| reply.fault == Some(InjectedFault::ResetBeforeBodyRead))
    }

    pub(super) fn len(&self) -> usize {
        let routes = self.routes.iter().map(|route| route.queue.len());
        self.general.len() + routes.sum::<usize>()
    }
}

/// The queue for one method and path.
struct Route {
    method: String,
    path: String,
    queue: VecDeque<Reply>,
}

impl Route {
    fn is(&self, method: &str, path: &str) -> bool {
        self.method.eq_ignore_ascii_case(method) && self.path == path
    }
}
