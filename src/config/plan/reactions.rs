//! The actions that run a program, call a server or keep a picture.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// `type = "hook"`
#[derive(Clone, Debug, PartialEq)]
pub struct HookPlan {
    /// Program and arguments; at least the program.
    pub command: Vec<String>,
    /// After this long the program and all that it started is killed.
    pub timeout: Duration,
    /// How many may run at once; at least 1.
    pub parallel: usize,
    /// How many events wait before the oldest is dropped and counted; at least 1.
    pub queue: usize,
}

/// `type = "webhook"`
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookPlan {
    /// `http://` or `https://`. Never shown: many services put their secret into the path.
    pub url: Secret,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<Secret>,
    /// A PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// For one attempt, from the name's resolution to the answer.
    pub timeout: Duration,
    /// Attempts after the first one, before an event is given up and counted.
    pub retries: u32,
    /// How many events wait before the oldest is dropped and counted; at least 1.
    pub queue: usize,
}

/// `type = "snapshot"`
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotPlan {
    /// Where the pictures go; made if it is missing.
    pub folder: PathBuf,
    /// The oldest is deleted before there are more than this; at least 1.
    pub count: usize,
    /// The oldest are deleted before they take more than this together.
    pub bytes: u64,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
}
