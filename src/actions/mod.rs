//! What is done about events: each action has a bounded outbox and a thread of its own, so that none waits for another.

use std::sync::Arc;

use crate::clock::Monotonic;
use crate::config::plan::Level;
use crate::rules::Event;

/// What an action is told.
#[derive(Clone, Debug)]
pub enum Message {
    /// A rule of this action turned on or off.
    Event(Arc<Event>),
    /// A camera came or went. Every action is told; most do not care.
    Camera(CameraStatus),
}

/// A camera's state, as an operator is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraStatus {
    /// The camera's name.
    pub camera: Arc<str>,
    /// Frames are coming.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What actions tell back, for the summary, the metrics and the tests.
pub trait Observer: Send + Sync {
    /// A line changed. `cause` is the event behind it, absent for the safe level at start and exit.
    fn edge(&self, edge: &Edge);
    /// A message left for good: published and acknowledged, or written.
    fn delivered(&self, action: &str, event: &Event);
}

/// One change of one line.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The action that owns the line.
    pub action: Arc<str>,
    /// The electrical level driven.
    pub level: Level,
    /// When the call that drove it had returned.
    pub at: Monotonic,
    /// The event that caused it.
    pub cause: Option<Arc<Event>>,
}
