//! Which capture devices there are, and which one a name means.

use std::path::{Path, PathBuf};

use serde::Serialize;
use v4l::FourCC;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::v4l_sys::{V4L2_CAP_STREAMING, V4L2_CAP_VIDEO_CAPTURE, V4L2_CAP_VIDEO_CAPTURE_MPLANE};
use v4l::video::Capture;

use super::abi::Node;
use super::choose::{Sizes, name_of};
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
    /// Where it is plugged in, as the driver names it.
    pub bus: String,
    /// The names under `/dev/v4l/by-id` and `/dev/v4l/by-path`, which survive a reboot.
    pub links: Vec<PathBuf>,
    /// What it offers.
    pub formats: Vec<FormatInfo>,
}

/// One format of a device.
#[derive(Clone, Debug, Serialize)]
pub struct FormatInfo {
    /// Four-character code, as `v4l2-ctl` prints it.
    pub fourcc: String,
    /// Width and height in pixels; of a range its two ends.
    pub sizes: Vec<[u32; 2]>,
    /// The fastest rate of each of the sizes in frames a second; `null` where the driver does not say.
    pub rates: Vec<Option<f64>>,
}

/// Every device that can capture pictures, in the order of their numbers.
pub fn list_devices() -> Vec<DeviceInfo> {
    cameras().map(|(node, card)| describe(&node, card)).collect()
}

/// The names that an error offers.
pub(super) fn names() -> Vec<String> {
    cameras().map(|(node, card)| format!("{} \"{card}\"", node.path.display())).collect()
}

/// The node of a path or card name, as things are now.
pub(super) fn resolve(name: &str) -> Result<PathBuf, CaptureError> {
    let missing = || CaptureError::NoSuchDevice { device: name.to_owned(), known: names() };
    if name.starts_with('/') {
        return if Path::new(name).exists() { Ok(name.into()) } else { Err(missing()) };
    }
    cameras().find(|(_, card)| card == name).map(|(node, _)| node.path).ok_or_else(missing)
}

/// The card's name, if the device captures pictures in one plane and streams.
pub(super) fn check_capture(node: &Node) -> Result<String, CaptureError> {
    let capabilities = node.capabilities().map_err(|_| no_camera(&node.path))?;
    match usable(capabilities.flags) {
        Ok(()) => Ok(capabilities.card),
        Err(Some(problem)) => Err(unusable(&node.path, problem)),
        Err(None) => Err(no_camera(&node.path)),
    }
}

/// The error for a file that is no capture device.
pub(super) fn no_camera(path: &Path) -> CaptureError {
    unusable(path, "is no camera: give a device that `spotter doctor` lists".to_owned())
}

fn unusable(path: &Path, problem: String) -> CaptureError {
    CaptureError::Unusable { device: path.display().to_string(), problem }
}

/// Whether a node with these `V4L2_CAP_…` is a camera that we can read; else what it is, if that is worth a word.
fn usable(flags: u32) -> Result<(), Option<String>> {
    let has = |flag| flags & flag != 0;
    if has(V4L2_CAP_VIDEO_CAPTURE) {
        let no_stream = "captures, but does not stream buffers: its driver is too old or broken";
        return if has(V4L2_CAP_STREAMING) { Ok(()) } else { Err(Some(no_stream.to_owned())) };
    }
    let multi_planar = "is multi-planar (a CSI pipeline or a codec), which Spotter does not read: use \
                        process = [\"rpicam-vid\", …] (Raspberry Pi) or [\"gst-launch-1.0\", …] (Jetson)";
    Err(has(V4L2_CAP_VIDEO_CAPTURE_MPLANE).then(|| multi_planar.to_owned()))
}

/// The capture devices and their cards' names, in the order of their numbers.
fn cameras() -> impl Iterator<Item = (Node, String)> {
    nodes().into_iter().filter_map(|path| {
        let node = Node::open(&path).ok()?;
        let card = check_capture(&node).ok()?;
        Some((node, card))
    })
}

/// `/dev/videoN` in the order of N.
fn nodes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().filter_map(Result::ok);
    let mut numbers: Vec<u32> =
        entries.filter_map(|e| e.file_name().to_str()?.strip_prefix("video")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|n| PathBuf::from(format!("/dev/video{n}"))).collect()
}

fn describe(node: &Node, card: String) -> DeviceInfo {
    let capabilities = node.capabilities();
    let (driver, bus) = capabilities.map(|c| (c.driver, c.bus)).unwrap_or_default();
    let formats = node.formats().unwrap_or_default().into_iter().map(|code| {
        let sizes: Vec<_> = sizes(node, code).into_iter().flat_map(ends).collect();
        let rates = sizes.iter().map(|&size| fastest(node, code, size)).collect();
        FormatInfo { fourcc: name_of(code), sizes, rates }
    });
    DeviceInfo { path: node.path.clone(), card, driver, bus, links: links(&node.path), formats: formats.collect() }
}

/// The sizes of a format; none where the driver does not list them.
pub(super) fn sizes(node: &Node, code: [u8; 4]) -> Vec<Sizes> {
    let listed = node.device.enum_framesizes(FourCC::new(&code)).unwrap_or_default();
    listed
        .into_iter()
        .map(|size| match size.size {
            FrameSizeEnum::Discrete(s) => Sizes::One([s.width, s.height]),
            FrameSizeEnum::Stepwise(s) => {
                Sizes::Range([s.min_width, s.min_height], [s.max_width, s.max_height], [s.step_width, s.step_height])
            }
        })
        .collect()
}

/// The fastest rate of a format and size in frames a second.
pub(super) fn fastest(node: &Node, code: [u8; 4], size: [u32; 2]) -> Option<f64> {
    let listed = node.device.enum_frameintervals(FourCC::new(&code), size[0], size[1]).unwrap_or_default();
    let rates = listed.into_iter().filter_map(|interval| match interval.interval {
        FrameIntervalEnum::Discrete(seconds) => rate(seconds),
        FrameIntervalEnum::Stepwise(range) => rate(range.min),
    });
    rates.max_by(f64::total_cmp)
}

/// Frames a second of an interval in seconds.
pub(super) fn rate(interval: v4l::Fraction) -> Option<f64> {
    let valid = interval.numerator > 0 && interval.denominator > 0;
    valid.then(|| f64::from(interval.denominator) / f64::from(interval.numerator))
}

fn ends(sizes: Sizes) -> Vec<[u32; 2]> {
    match sizes {
        Sizes::One(size) => vec![size],
        Sizes::Range(least, greatest, _) => vec![least, greatest],
    }
}

fn links(node: &Path) -> Vec<PathBuf> {
    let folders = ["/dev/v4l/by-id", "/dev/v4l/by-path"];
    let entries = folders.iter().flat_map(|f| std::fs::read_dir(f).into_iter().flatten()).filter_map(Result::ok);
    entries.map(|e| e.path()).filter(|link| std::fs::canonicalize(link).is_ok_and(|to| to == node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_judged_by_its_own_capabilities() {
        let check = |flags, expected: &str| {
            let told = usable(flags).map_or_else(|p| p.unwrap_or_else(|| "no camera".into()), |()| "usable".into());
            assert!(told.contains(expected), "{flags:#x}: {told}");
        };
        check(V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING, "usable");
        check(V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_VIDEO_CAPTURE_MPLANE | V4L2_CAP_STREAMING, "usable");
        check(V4L2_CAP_VIDEO_CAPTURE, "does not stream");
        check(V4L2_CAP_VIDEO_CAPTURE_MPLANE | V4L2_CAP_STREAMING, "rpicam-vid");
        // The metadata node that every UVC camera has beside its pictures.
        check(v4l::v4l_sys::V4L2_CAP_META_CAPTURE | V4L2_CAP_STREAMING, "no camera");
    }

    #[test]
    fn what_does_not_exist_is_named_with_what_does() {
        for name in ["/dev/video-none", "No such card"] {
            let error = resolve(name).map(|_| ()).unwrap_err();
            assert!(matches!(error, CaptureError::NoSuchDevice { .. }));
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn an_interval_of_nothing_has_no_rate() {
        assert_eq!(rate(v4l::Fraction::new(1, 30)), Some(30.0));
        assert_eq!(rate(v4l::Fraction::new(0, 30)), None);
        assert_eq!(rate(v4l::Fraction::new(1, 0)), None);
    }
}
