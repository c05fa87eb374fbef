//! The bounded queue between the rules and an action that takes its events one by one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Message;
use super::runner::Mailbox;
use crate::rules::Event;
use crate::telemetry::Counter;

/// What becomes of the oldest event when a full queue gets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// It is gone; the count says so.
    Drop,
    /// It is counted as dropped, but the latest of each rule is kept aside and taken first, so that whoever follows
    /// the rules' states never ends on an old one. Bounded by the number of rules.
    KeepLatest,
}

/// What [`Outbox::take`] found.
#[derive(Debug)]
pub(super) enum Taken {
    /// The next event.
    Event(Arc<Event>),
    /// Nothing until the asked time.
    Timeout,
    /// The queue is empty and closing; what is still to do must be done by then.
    Closing(Instant),
}

/// A bounded first-in first-out queue of events. Camera states are not for its kind of action and pass by.
pub(super) struct Outbox {
    capacity: usize,
    overflow: Overflow,
    inner: Mutex<Inner>,
    wake: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Arc<Event>>,
    /// Dropped from `waiting`, the latest of each rule: older than everything in `waiting`.
    missed: BTreeMap<Arc<str>, Arc<Event>>,
    /// An event has been taken and the taker has not come back.
    in_hand: bool,
    closing: Option<Instant>,
}

impl Outbox {
    /// A queue of `capacity` events (at least one).
    pub(super) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self {
            capacity: capacity.max(1),
            overflow,
            inner: Mutex::default(),
            wake: Condvar::new(),
            dropped: Counter::default(),
        }
    }

    /// The next event; waits for one until `until` (for ever if absent) or until the queue is closed.
    pub(super) fn take(&self, until: Option<Instant>) -> Taken {
        let mut inner = self.lock();
        inner.in_hand = false;
        loop {
            if let Some(event) = inner.next() {
                inner.in_hand = true;
                return Taken::Event(event);
            }
            if let Some(deadline) = inner.closing {
                return Taken::Closing(deadline);
            }
            inner = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Taken::Timeout,
                Some(left) => self.wake.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Counts an event that was taken and could not be acted on.
    pub(super) fn count_lost(&self) {
        self.dropped.increment();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn next(&mut self) -> Option<Arc<Event>> {
        self.missed.pop_first().map(|(_, event)| event).or_else(|| self.waiting.pop_front())
    }
}

impl Mailbox for Outbox {
    fn push(&self, message: Message) -> bool {
        let Message::Event(event) = message else { return true };
        let mut inner = self.lock();
        if inner.closing.is_some() {
            return false;
        }
        let full = inner.waiting.len() >= self.capacity;
        if full && let Some(oldest) = inner.waiting.pop_front() {
            self.dropped.increment();
            if self.overflow == Overflow::KeepLatest {
                inner.missed.insert(oldest.rule.clone(), oldest);
            }
        }
        inner.waiting.push_back(event);
        drop(inner);
        self.wake.notify_one();
        !full
    }

    fn close(&self, until: Instant) {
        self.lock().closing.get_or_insert(until);
        self.wake.notify_all();
    }

    fn depth(&self) -> usize {
        let inner = self.lock();
        inner.waiting.len() + inner.missed.len() + usize::from(inner.in_hand)
    }

    fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::actions::payload::tests::event;
    use crate::rules::{Change, OffReason};

    fn push(outbox: &Outbox, rule: &str, change: Change) -> bool {
        outbox.push(Message::Event(Arc::new(event(rule, change))))
    }

    fn drain(outbox: &Outbox) -> Vec<(String, bool)> {
        let mut taken = Vec::new();
        while let Taken::Event(event) = outbox.take(Some(Instant::now())) {
            taken.push((event.rule.to_string(), event.change == Change::On));
        }
        taken
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let outbox = Outbox::new(2, Overflow::Drop);
        let kept: Vec<bool> = ["a", "b", "c", "d"].iter().map(|rule| push(&outbox, rule, Change::On)).collect();
        assert_eq!(kept, [true, true, false, false]);
        assert_eq!((outbox.dropped(), outbox.depth()), (2, 2));
        assert_eq!(drain(&outbox), [("c".into(), true), ("d".into(), true)]);
        assert_eq!(outbox.depth(), 0);
    }

    #[test]
    fn the_last_state_of_every_rule_survives_an_overflow() {
        let outbox = Outbox::new(2, Overflow::KeepLatest);
        push(&outbox, "quiet", Change::On);
        push(&outbox, "quiet", Change::Off(OffReason::Gone));
        for _ in 0..10 {
            push(&outbox, "busy", Change::On);
            push(&outbox, "busy", Change::Off(OffReason::Gone));
        }
        assert_eq!(outbox.dropped(), 20);
        let taken = drain(&outbox);
        assert_eq!(taken.iter().rev().find(|(rule, _)| rule == "quiet"), Some(&("quiet".into(), false)), "{taken:?}");
        assert_eq!(taken.last(), Some(&("busy".into(), false)), "{taken:?}");
    }

    #[test]
    fn an_event_in_hand_counts_until_the_taker_comes_back() {
        let outbox = Outbox::new(2, Overflow::Drop);
        push(&outbox, "a", Change::On);
        assert!(matches!(outbox.take(None), Taken::Event(_)));
        assert_eq!(outbox.depth(), 1);
        assert!(matches!(outbox.take(Some(Instant::now())), Taken::Timeout));
        assert_eq!(outbox.depth(), 0);
    }

    #[test]
    fn closing_drains_first_and_takes_nothing_new() {
        let outbox = Outbox::new(2, Overflow::Drop);
        push(&outbox, "a", Change::On);
        outbox.close(Instant::now() + Duration::from_secs(1));
        assert!(!push(&outbox, "b", Change::On));
        assert!(matches!(outbox.take(None), Taken::Event(event) if &*event.rule == "a"));
        assert!(matches!(outbox.take(None), Taken::Closing(_)));
    }
}
