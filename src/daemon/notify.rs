//! The conversation with systemd: ready, status line, watchdog, stopping (sd_notify(3)). Silent elsewhere.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::Monotonic;

/// The service manager's ear, with the watchdog's rhythm.
#[derive(Debug)]
pub(super) struct Notifier {
    /// Feed no more often than this: a quarter of what the unit allows, so that a fast loop does not send thousands.
    interval: Option<Duration>,
    last_feed: Option<Monotonic>,
    last_status: String,
}

impl Notifier {
    /// Reads from the environment whether, and how often, the unit wants the watchdog fed.
    pub(super) fn from_environment() -> Self {
        let interval = sd_notify::watchdog_enabled().map(|limit| limit / 4);
        Self { interval, last_feed: None, last_status: String::new() }
    }

    /// Start-up is over.
    pub(super) fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The configuration is read again; [`Self::ready`] follows when that is over, well or not.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => log::debug!("the monotonic clock: {error}"),
        }
    }

    /// Shutdown has begun.
    pub(super) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// The line that `systemctl status` shows; sent only when it changes.
    pub(super) fn status(&mut self, status: &str) {
        if status != self.last_status {
            send(&[NotifyState::Status(status)]);
            self.last_status = status.to_owned();
        }
    }

    /// The inference loop has made progress, or has nothing to do. Only that loop calls this: a loop that stalls
    /// starves the watchdog, whatever other threads are doing.
    pub(super) fn feed_watchdog(&mut self, now: Monotonic) {
        let Some(interval) = self.interval else { return };
        if self.last_feed.is_none_or(|last| now.since(last) >= interval) {
            send(&[NotifyState::Watchdog]);
            self.last_feed = Some(now);
        }
    }
}

/// A manager that has gone away must not end the daemon.
fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("telling the service manager {states:?}: {error}");
    }
}
