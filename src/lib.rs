//! Spotter: a daemon that watches cameras, recognises what they see with an int8 network, and acts on it.
//!
//! The data's way, and the module that each step lives in:
//!
//! ```text
//!  capture ──► latest-frame slot ──► preprocess ──► model ──► rules ──► outbox per action ──► actions
//!  a Frame     newest wins            InputTensor   Scores    Event     bounded, counted      GPIO, MQTT, log
//! ```
//!
//! Modules depend downwards only: [`cli`] on [`daemon`] on everything else; [`kernels`] know nothing of models,
//! [`rules`] nothing of cameras or clocks, [`config`] nothing of anybody. `unsafe` is allowed in `kernels`, in the
//! V4L2 calls and buffer queue, and in [`memory`], which maps files, nowhere else.

pub mod actions;
pub mod backoff;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod files;
pub mod float_bits;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod inputs;
pub mod kernels;
pub mod memory;
pub mod model;
pub mod motion;
mod onnx;
pub mod panics;
pub mod preprocess;
mod priority;
pub mod quantize;
pub mod replay;
pub mod rules;
pub mod teach;
pub mod telemetry;
pub mod web;
