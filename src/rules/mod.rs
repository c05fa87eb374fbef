//! Rules: pure `(state, observation, now) → (state, events)`. They know nothing of cameras, models or clocks.

pub mod event;

pub use event::{Change, Event, Observation, OffReason};
