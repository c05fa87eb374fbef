//! Which capture devices there are, and which one a name means.

use std::path::{Path, PathBuf};

use serde::Serialize;
use v4l::Device;
use v4l::capability::Flags;
use v4l::framesize::FrameSizeEnum;
use v4l::video::Capture;

use crate::capture::CaptureError;

/// One capture device, for `spotter doctor`.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceInfo {
    /// `/dev/videoN`
    pub path: PathBuf,
    /// The card's name; a configuration may use it.
    pub card: String,
    /// The kernel driver.
    pub driver: String,
    /// The names under `/dev/v4l/by-id` and `/dev/v4l/by-path`, which survive a reboot.
    pub links: Vec<PathBuf>,
    /// What it offers.
    pub formats: Vec<FormatInfo>,
}

/// One format of a device.
#[derive(Clone, Debug, Serialize)]
pub struct FormatInfo {
    /// Four-character code.
    pub fourcc: String,
    /// Width and height in pixels.
    pub sizes: Vec<[u32; 2]>,
}

/// Every device that can capture pictures.
pub fn list_devices() -> Vec<DeviceInfo> {
    let mut devices: Vec<_> = nodes().iter().filter_map(|node| describe(node)).collect();
    devices.sort_by(|a, b| a.path.cmp(&b.path));
    devices
}

/// The names that an error offers.
pub(super) fn names() -> Vec<String> {
    list_devices().iter().map(|d| format!("{} \"{}\"", d.path.display(), d.card)).collect()
}

/// The node of a path or card name, as things are now.
pub(super) fn resolve(name: &str) -> Result<PathBuf, CaptureError> {
    let missing = || CaptureError::NoSuchDevice { device: name.to_owned(), known: names() };
    if name.starts_with('/') {
        return if Path::new(name).exists() { Ok(name.into()) } else { Err(missing()) };
    }
    list_devices().into_iter().find(|d| d.card == name).map(|d| d.path).ok_or_else(missing)
}

/// The card's name, if the device captures pictures in one plane and streams.
pub(super) fn check_capture(device: &Device, node: &Path) -> Result<String, CaptureError> {
    let unusable =
        |problem: &str| CaptureError::Unusable { device: node.display().to_string(), problem: problem.into() };
    let remedy = "is no camera: give a device that `spotter doctor` lists";
    let capabilities = device.query_caps().map_err(|_| unusable(remedy))?;
    let flags = capabilities.capabilities;
    if flags.contains(Flags::VIDEO_CAPTURE_MPLANE) {
        return Err(unusable("is multi-planar (a decoder or CSI pipeline): use process = [\"rpicam-vid\", …] instead"));
    }
    if !flags.contains(Flags::VIDEO_CAPTURE) || !flags.contains(Flags::STREAMING) {
        return Err(unusable(remedy));
    }
    Ok(capabilities.card)
}

/// A control's name as v4l2-ctl prints it: lower case, runs of other characters as `_`.
pub(super) fn control_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

fn nodes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().filter_map(Result::ok);
    entries.filter(|e| e.file_name().to_string_lossy().starts_with("video")).map(|e| e.path()).collect()
}

fn describe(node: &Path) -> Option<DeviceInfo> {
    let device = Device::with_path(node).ok()?;
    let card = check_capture(&device, node).ok()?;
    let driver = device.query_caps().ok()?.driver;
    let formats = device.enum_formats().unwrap_or_default().into_iter().map(|format| {
        let sizes = device.enum_framesizes(format.fourcc).unwrap_or_default().into_iter().flat_map(|s| sizes(&s.size));
        FormatInfo { fourcc: format.fourcc.to_string(), sizes: sizes.collect() }
    });
    Some(DeviceInfo { path: node.into(), card, driver, links: links(node), formats: formats.collect() })
}

/// Discrete sizes as they are, of a range its two ends.
fn sizes(size: &FrameSizeEnum) -> Vec<[u32; 2]> {
    match size {
        FrameSizeEnum::Discrete(d) => vec![[d.width, d.height]],
        FrameSizeEnum::Stepwise(s) => vec![[s.min_width, s.min_height], [s.max_width, s.max_height]],
    }
}

fn links(node: &Path) -> Vec<PathBuf> {
    let folders = ["/dev/v4l/by-id", "/dev/v4l/by-path"];
    let entries = folders.iter().flat_map(|f| std::fs::read_dir(f).into_iter().flatten()).filter_map(Result::ok);
    entries.map(|e| e.path()).filter(|link| std::fs::canonicalize(link).is_ok_and(|to| to == node)).collect()
}
