//! Every default of a configuration, with its reason. [`super::KEYS`] shows them to readers; a test holds the two together.

use std::time::Duration;

use super::plan::Fit;

/// Measured with the shipped model on photos pasted into 1280x720 scenes (the table is in `preprocess`): the model's own crop is right
/// twice as often as grey bars, because a small object is worse than a missed edge. What lies off centre wants a region.
pub const DEFAULT_FIT: Fit = Fit::Crop;
/// Cameras deliver several frames a second even in the dark; a device that is silent for this long hangs.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Twice the time-out: one reopening is not worth an alarm.
pub const DEFAULT_STALE: Duration = Duration::from_secs(10);
/// More sure than not, with a margin.
pub const DEFAULT_ON: f32 = 0.6;
/// `off` as a part of `on`: wide enough that a score does not hover across both.
pub const DEFAULT_OFF_SHARE: f32 = 2.0 / 3.0;
/// Every frame decides, until more are asked for.
pub const DEFAULT_HITS: u32 = 1;
/// Long enough for a relay, a siren or a PLC's input filter.
pub const DEFAULT_PULSE: Duration = Duration::from_millis(500);
/// A pattern is played once, like a pulse.
pub const DEFAULT_PATTERN_REPEAT: u32 = 1;
/// Thousandths: half, which a lamp or a motor shows as such.
pub const DEFAULT_DUTY: u16 = 500;
/// Above flicker, below what an optocoupler or a motor driver no longer follows.
pub const DEFAULT_FREQUENCY: u32 = 1000;
/// A conveyor's part is long past the camera by then.
pub const DEFAULT_VERDICT_TIMEOUT: Duration = Duration::from_secs(2);
/// Parts between the sensor and the camera.
pub const DEFAULT_STATION_QUEUE: usize = 8;
/// The bounce of a reed contact or a relay; a light barrier has none.
pub const DEFAULT_DEBOUNCE: Duration = Duration::from_millis(5);
/// Levels of 256: four to ten times the noise that is left in the mean of a block, in the dusk too.
pub const DEFAULT_MOTION_THRESHOLD: u8 = 4;
/// A thing that covers less of a region is not recognised in it.
pub const DEFAULT_MOTION_AREA: f64 = 0.005;
/// What the gate overlooks is seen after this long all the same.
pub const DEFAULT_MOTION_FLOOR: Duration = Duration::from_secs(10);
/// A thing that stops to look is still there.
pub const DEFAULT_MOTION_LINGER: Duration = Duration::from_secs(2);
/// Where a Raspberry Pi begins to slow down
/// (<https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#frequency-management-and-thermal-control>).
pub const DEFAULT_THERMAL_LIMIT: f64 = 80.0;
/// Where the kernel shows the board.
pub const DEFAULT_SYSFS: &str = "/sys";
/// The first part of every topic.
pub const DEFAULT_TOPIC: &str = "spotter";
/// The prefix that Home Assistant listens to unless told otherwise.
pub const DEFAULT_DISCOVERY: &str = "homeassistant";
/// Some hours of a busy rule in about 100 kB.
pub const DEFAULT_OUTBOX: usize = 256;
/// A hook sends a message or switches something; what takes longer hangs.
pub const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// One that hangs does not hold up the next, and a storm of events does not fill a small board with processes.
pub const DEFAULT_HOOK_PARALLEL: usize = 2;
/// What waits longer than some dozens of runs is no news any more.
pub const DEFAULT_HOOK_QUEUE: usize = 64;
/// A server in the house answers in milliseconds, one behind a mobile network in seconds.
pub const DEFAULT_WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// With their back-off some twenty seconds to a minute: the restart of a server.
pub const DEFAULT_WEBHOOK_RETRIES: u32 = 5;
/// As many as an MQTT broker's.
pub const DEFAULT_WEBHOOK_QUEUE: usize = 256;
/// Some days of a garden.
pub const DEFAULT_SNAPSHOT_COUNT: usize = 200;
/// 200 pictures of 1280x720 take about 40 MB; /run is a tenth or a fifth of a board's memory.
pub const DEFAULT_SNAPSHOT_MEGABYTES: u64 = 50;
/// Where JPEG's faults begin to be seen.
pub const DEFAULT_SNAPSHOT_QUALITY: u8 = 85;
