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

/// What an action takes one by one: an event, or an event with something to it.
pub(super) trait Item: Sized + Send {
    /// Whether it wants [`Message::Pictured`] where it can have it.
    const PICTURES: bool = false;

    /// What the action has to do about `message`, if anything.
    fn of(message: Message) -> Option<Self>;

    /// The rule that it is about.
    fn rule(&self) -> &Arc<str>;
}

impl Item for Arc<Event> {
    fn of(message: Message) -> Option<Self> {
        match message {
            Message::Event(event) | Message::Pictured(event, _) | Message::Standing(event) => Some(event),
            Message::Camera(_) | Message::Armed { .. } => None,
        }
    }

    fn rule(&self) -> &Arc<str> {
        &self.rule
    }
}

/// What [`Outbox::take`] found.
#[derive(Debug)]
pub(super) enum Taken<T = Arc<Event>> {
    /// The next event.
    Event(T),
    /// Nothing until the asked time.
    Timeout,
    /// The queue is empty and closing; what is still to do must be done by then.
    Closing(Instant),
}

/// A bounded first-in first-out queue of events. Camera states are not for its kind of action and pass by.
pub(super) struct Outbox<T = Arc<Event>> {
    capacity: usize,
    overflow: Overflow,
    inner: Mutex<Inner<T>>,
    wake: Condvar,
    dropped: Counter,
}

struct Inner<T> {
    waiting: VecDeque<T>,
    /// Dropped from `waiting`, the latest of each rule: older than everything in `waiting`.
    missed: BTreeMap<Arc<str>, T>,
    /// Events that have been taken and whose takers have not come back.
    in_hand: usize,
    closing: Option<Instant>,
}

impl<T> Outbox<T> {
    /// A queue of `capacity` events (at least one).
    pub(super) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self {
            capacity: capacity.max(1),
            overflow,
            inner: Mutex::new(Inner { waiting: VecDeque::new(), missed: BTreeMap::new(), in_hand: 0, closing: None }),
            wake: Condvar::new(),
            dropped: Counter::default(),
        }
    }

    /// The next event; waits for one until `until` (for ever if absent) or until the queue is closed. For a queue with
    /// one taker: what it took before is done with.
    pub(super) fn take(&self, until: Option<Instant>) -> Taken<T> {
        let mut inner = self.lock();
        inner.in_hand = 0;
        self.wait(inner, until)
    }

    /// As [`take`](Self::take), for ever, for a queue with several takers: `done` of what they took is done with.
    pub(super) fn take_another(&self, done: usize) -> Taken<T> {
        let mut inner = self.lock();
        inner.in_hand = inner.in_hand.saturating_sub(done);
        self.wait(inner, None)
    }

    fn wait(&self, mut inner: MutexGuard<'_, Inner<T>>, until: Option<Instant>) -> Taken<T> {
        loop {
            if let Some(event) = inner.next() {
                inner.in_hand += 1;
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

    /// When all must be over, if the queue is closed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lock().closing
    }

    /// Waits until `until`, or until the deadline of a close. `false`: that deadline has passed.
    pub(super) fn pause(&self, until: Instant) -> bool {
        let mut inner = self.lock();
        loop {
            let (end, now) = (inner.closing.map_or(until, |deadline| until.min(deadline)), Instant::now());
            if now >= end {
                return inner.closing.is_none_or(|deadline| now < deadline);
            }
            inner = self.wake.wait_timeout(inner, end - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Counts an event that was taken and could not be acted on.
    pub(super) fn count_lost(&self) {
        self.dropped.increment();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn next(&mut self) -> Option<T> {
        self.missed.pop_first().map(|(_, event)| event).or_else(|| self.waiting.pop_front())
    }
}

impl<T: Item> Mailbox for Outbox<T> {
    fn push(&self, message: Message) -> bool {
        // Only who follows states wants to know of one that stands.
        if matches!(message, Message::Standing(_)) && self.overflow != Overflow::KeepLatest {
            return true;
        }
        let Some(event) = T::of(message) else { return true };
        let mut inner = self.lock();
        if inner.closing.is_some() {
            return false;
        }
        let full = inner.waiting.len() >= self.capacity;
        if full && let Some(oldest) = inner.waiting.pop_front() {
            self.dropped.increment();
            if self.overflow == Overflow::KeepLatest {
                inner.missed.insert(oldest.rule().clone(), oldest);
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
        inner.waiting.len() + inner.missed.len() + inner.in_hand
    }

    fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    fn wants_pictures(&self) -> bool {
        T::PICTURES
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
        let outbox = Outbox::<Arc<Event>>::new(2, Overflow::Drop);
        let kept: Vec<bool> = ["a", "b", "c", "d"].iter().map(|rule| push(&outbox, rule, Change::On)).collect();
        assert_eq!(kept, [true, true, false, false]);
        assert_eq!((outbox.dropped(), outbox.depth()), (2, 2));
        assert_eq!(drain(&outbox), [("c".into(), true), ("d".into(), true)]);
        assert_eq!(outbox.depth(), 0);
    }

    #[test]
    fn the_last_state_of_every_rule_survives_an_overflow() {
        let outbox = Outbox::<Arc<Event>>::new(2, Overflow::KeepLatest);
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
        let outbox = Outbox::<Arc<Event>>::new(2, Overflow::Drop);
        push(&outbox, "a", Change::On);
        assert!(matches!(outbox.take(None), Taken::Event(_)));
        assert_eq!(outbox.depth(), 1);
        assert!(matches!(outbox.take(Some(Instant::now())), Taken::Timeout));
        assert_eq!(outbox.depth(), 0);
    }

    #[test]
    fn what_several_takers_have_in_hand_is_counted_until_each_comes_back() {
        let outbox = Outbox::<Arc<Event>>::new(4, Overflow::Drop);
        ["a", "b", "c"].iter().for_each(|rule| _ = push(&outbox, rule, Change::On));
        assert!(matches!((outbox.take_another(0), outbox.take_another(0)), (Taken::Event(_), Taken::Event(_))));
        assert_eq!(outbox.depth(), 3);
        assert!(matches!(outbox.take_another(1), Taken::Event(_)));
        assert_eq!(outbox.depth(), 2);
        outbox.close(Instant::now());
        assert!(matches!(outbox.take_another(1), Taken::Closing(_)));
        assert_eq!(outbox.depth(), 1);
    }

    #[test]
    fn a_pause_ends_with_the_deadline_of_a_close() {
        let outbox = Outbox::<Arc<Event>>::new(1, Overflow::Drop);
        assert!(outbox.pause(Instant::now()));
        let long = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let pausing = scope.spawn(|| outbox.pause(long));
            outbox.close(Instant::now() + Duration::from_millis(5));
            assert!(!pausing.join().unwrap());
        });
        assert!(Instant::now() < long);
    }

    #[test]
    fn closing_drains_first_and_takes_nothing_new() {
        let outbox = Outbox::<Arc<Event>>::new(2, Overflow::Drop);
        push(&outbox, "a", Change::On);
        outbox.close(Instant::now() + Duration::from_secs(1));
        assert!(!push(&outbox, "b", Change::On));
        assert!(matches!(outbox.take(None), Taken::Event(event) if &*event.rule == "a"));
        assert!(matches!(outbox.take(None), Taken::Closing(_)));
    }
}
