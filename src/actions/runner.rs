//! One thread an action, and the handle that the rest of the daemon holds on it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{ActionContext, ActionError, Message};
use crate::clock::Monotonic;
use crate::priority::Priority;
use crate::telemetry::Counter;

/// Where an action's messages wait. None of these blocks for longer than it takes to move a few pointers.
pub(super) trait Mailbox: Send + Sync {
    /// Takes a message. `false`: something was dropped to make room, or the mailbox is closed.
    fn push(&self, message: Message) -> bool;
    /// Takes nothing more; what is queued may be worked on until `until`.
    fn close(&self, until: Instant);
    /// Events that are queued, or taken and not yet done with.
    fn depth(&self) -> usize;
    /// Events that were dropped or could not be acted on.
    fn dropped(&self) -> u64;
    /// Whether it wants the frame with an event.
    fn wants_pictures(&self) -> bool {
        false
    }
    /// Commands from outside that were none, or could not be taken.
    fn refused(&self) -> u64 {
        0
    }
}

/// How an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has not yet succeeded or failed.
    Starting,
    /// It works.
    Ready,
    /// It does not work at the moment and tries again by itself.
    Degraded,
    /// It does not work, and will not before somebody changes something (credentials, a chip's name); it still tries.
    Rejected,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Rejected => "rejected",
        })
    }
}

/// How an action is, why, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionStatus {
    /// How it is.
    pub health: Health,
    /// What it is connected to, or what is wrong and what to try.
    pub detail: String,
    /// Since when `health` is what it is.
    pub since: Monotonic,
}

/// An action's status, written by its thread and read by anybody. A change of health is logged once.
pub(super) struct StatusCell {
    action: Arc<str>,
    status: Mutex<ActionStatus>,
    connected: Counter,
}

impl StatusCell {
    pub(super) fn new(action: Arc<str>) -> Self {
        let status = ActionStatus { health: Health::Starting, detail: String::new(), since: Monotonic::now() };
        Self { action, status: Mutex::new(status), connected: Counter::default() }
    }

    /// Notes how the action is; logs if `health` has changed, and stays silent if only the words have.
    pub(super) fn set(&self, health: Health, detail: String) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = status.health != health;
        if changed {
            status.since = Monotonic::now();
            if health == Health::Ready {
                self.connected.increment();
            }
        }
        status.health = health;
        status.detail.clone_from(&detail);
        drop(status);
        let action = &self.action;
        match (changed, health) {
            (false, _) => log::debug!("action \"{action}\": {detail}"),
            (true, Health::Starting | Health::Ready) => log::info!("action \"{action}\": {detail}"),
            (true, Health::Degraded) => log::warn!("action \"{action}\": {detail}"),
            (true, Health::Rejected) => log::error!("action \"{action}\": {detail}"),
        }
    }

    pub(super) fn get(&self) -> ActionStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Set when a thread has ended, by whatever way.
#[derive(Default)]
struct Ended(Mutex<bool>, Condvar);

impl Ended {
    fn wait(&self, limit: Duration) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *self.1.wait_timeout_while(ended, limit, |ended| !*ended).unwrap_or_else(PoisonError::into_inner).0
    }
}

struct EndedGuard(Arc<Ended>);

impl Drop for EndedGuard {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

/// The rest of the daemon's hold on a running action. Dropping it without [`close`](Self::close) closes the action
/// without waiting for it.
pub struct ActionHandle {
    name: Arc<str>,
    mailbox: Arc<dyn Mailbox>,
    status: Arc<StatusCell>,
    ended: Arc<Ended>,
    urgent: bool,
    reconfigure: Option<Reconfigure>,
}

/// How an action is told of other rules and cameras.
type Reconfigure = Box<dyn Fn(&ActionContext) + Send + Sync>;

/// How much longer than asked a closing action is waited for: the time to drive a line or to say goodbye to a broker.
const GRACE: Duration = Duration::from_millis(500);

impl ActionHandle {
    /// The action's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Hands over a message without ever waiting. `false`: the queue was full, so that an older event (or this one) was
    /// dropped and counted, or the action is closed. States (a follow line's, a retained topic's) survive an overflow.
    pub fn send(&self, message: Message) -> bool {
        self.mailbox.push(message)
    }

    /// The same action, which has to know of other rules and cameras.
    pub(super) fn told_of_changes(mut self, tell: impl Fn(&ActionContext) + Send + Sync + 'static) -> Self {
        self.reconfigure = Some(Box::new(tell));
        self
    }

    /// The rules and cameras are other ones from now on; most actions do not care.
    pub fn reconfigure(&self, context: &ActionContext) {
        if let Some(tell) = &self.reconfigure {
            tell(context);
        }
    }

    /// Whether it is to be told of an event before those that are not: it drives a pin. Waking another action's thread takes
    /// some microseconds, and more where that thread then takes the core.
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether [`Message::Pictured`] is wanted instead of [`Message::Event`].
    pub fn wants_pictures(&self) -> bool {
        self.mailbox.wants_pictures()
    }

    /// Events that wait, or that are taken and not yet done with (for MQTT: not yet acknowledged).
    pub fn depth(&self) -> usize {
        self.mailbox.depth()
    }

    /// Events that were dropped by a full queue or could not be acted on.
    pub fn dropped(&self) -> u64 {
        self.mailbox.dropped()
    }

    /// Commands from outside that were none, or could not be taken (an MQTT action's).
    pub fn refused(&self) -> u64 {
        self.mailbox.refused()
    }

    /// How the action is.
    pub fn status(&self) -> ActionStatus {
        self.status.get()
    }

    /// Times it has become [`Health::Ready`]: all but the first are reconnects.
    pub fn connected(&self) -> u64 {
        self.status.connected.get()
    }

    /// Tells the action to drain its queue within `limit`, then to release what it holds; does not wait.
    pub fn begin_close(&self, limit: Duration) {
        self.mailbox.close(Instant::now() + limit);
    }

    /// Closes and waits, at most `limit` and half a second. `false`: the action has not ended by then and is left
    /// behind (its line, if it has one, is still driven to safety by [`gpio::drive_all_safe`](super::gpio::drive_all_safe)).
    pub fn close(&self, limit: Duration) -> bool {
        self.begin_close(limit);
        self.ended.wait(limit + GRACE)
    }
}

impl Drop for ActionHandle {
    fn drop(&mut self) {
        self.mailbox.close(Instant::now());
    }
}

impl fmt::Debug for ActionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionHandle").field("name", &self.name).field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Closes all of `handles` at once, so that they share the one `limit`, and waits for them. Returns the names of those
/// that had not ended half a second after it.
pub fn close_all<H: Borrow<ActionHandle>>(handles: &[H], limit: Duration) -> Vec<Arc<str>> {
    let deadline = Instant::now() + limit;
    let handles = || handles.iter().map(Borrow::borrow);
    handles().for_each(|handle| handle.mailbox.close(deadline));
    let left = || deadline.saturating_duration_since(Instant::now());
    handles().filter(|handle| !handle.ended.wait(left() + GRACE)).map(|handle| handle.name.clone()).collect()
}

/// Starts `work` on a thread named after the action, behind the inference loop.
pub(super) fn spawn(
    name: Arc<str>,
    mailbox: Arc<dyn Mailbox>,
    status: Arc<StatusCell>,
    work: impl FnOnce() + Send + 'static,
) -> Result<ActionHandle, ActionError> {
    spawn_with(Priority::Message, name, mailbox, status, work)
}

/// As [`spawn`], for an action that drives a pin: ahead of everything else, and told of an event first.
pub(super) fn spawn_urgent(
    name: Arc<str>,
    mailbox: Arc<dyn Mailbox>,
    status: Arc<StatusCell>,
    work: impl FnOnce() + Send + 'static,
) -> Result<ActionHandle, ActionError> {
    spawn_with(Priority::Pin, name, mailbox, status, work)
}

fn spawn_with(
    priority: Priority,
    name: Arc<str>,
    mailbox: Arc<dyn Mailbox>,
    status: Arc<StatusCell>,
    work: impl FnOnce() + Send + 'static,
) -> Result<ActionHandle, ActionError> {
    let ended = Arc::new(Ended::default());
    let guard = EndedGuard(ended.clone());
    let thread = std::thread::Builder::new().name(format!("action {name}")).spawn(move || {
        let _guard = guard;
        priority.take();
        work();
    });
    let urgent = priority == Priority::Pin;
    match thread {
        Ok(_detached) => Ok(ActionHandle { name, mailbox, status, ended, urgent, reconfigure: None }),
        Err(source) => Err(ActionError::Thread { action: name, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::outbox::{Outbox, Overflow, Taken};
    use crate::actions::payload::tests::event;
    use crate::rules::Change;

    fn start(work: impl FnOnce(&Outbox) + Send + 'static) -> ActionHandle {
        let outbox = Arc::new(Outbox::new(4, Overflow::Drop));
        let status = Arc::new(StatusCell::new("test".into()));
        let theirs = outbox.clone();
        spawn("test".into(), outbox, status, move || work(&theirs)).unwrap()
    }

    #[test]
    fn close_waits_until_the_queue_is_drained() {
        let handle = start(|outbox| {
            while let Taken::Event(_) = outbox.take(None) {
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        for _ in 0..3 {
            assert!(handle.send(Message::Event(Arc::new(event("a", Change::On)))));
        }
        assert!(handle.close(Duration::from_secs(5)));
        assert_eq!(handle.depth(), 0);
        assert!(!handle.send(Message::Event(Arc::new(event("a", Change::On)))), "closed");
    }

    #[test]
    fn a_stuck_action_is_left_behind_within_the_limit() {
        let handle = start(|_| std::thread::sleep(Duration::from_secs(3)));
        let began = Instant::now();
        assert_eq!(close_all(std::slice::from_ref(&handle), Duration::from_millis(50)), ["test".into()]);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[test]
    fn sending_to_a_full_queue_never_blocks() {
        let handle = start(|_| std::thread::sleep(Duration::from_millis(300)));
        let began = Instant::now();
        let sent = (0..1000).filter(|_| handle.send(Message::Event(Arc::new(event("a", Change::On))))).count();
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        assert_eq!((sent, handle.dropped(), handle.depth()), (4, 996, 4));
    }
}
