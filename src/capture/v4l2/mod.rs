//! V4L2 capture devices: the `v4l` crate for sizes, rates and controls, our own [`queue`] for the buffers.

mod abi;
mod choose;
mod devices;
mod queue;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use v4l::control::{Control, Value};
use v4l::v4l_sys::{V4L2_CTRL_FLAG_INACTIVE, V4L2_CTRL_FLAG_READ_ONLY};
use v4l::video::Capture;
use v4l::video::capture::Parameters;

use super::decode::{least_stride, needed_bytes};
use super::{CaptureError, Frame, Next, PixelFormat, Source};
use crate::config::plan::CameraPlan;
use crate::telemetry::CameraCounters;
use abi::{ControlInfo, Layout, Node};
use choose::Offer;
use queue::{Filled, Queue};

pub use devices::{DeviceInfo, FormatInfo, list_devices};

/// Enough that one is filled while one is copied and one waits; more would only add latency.
const BUFFERS: u32 = 4;
/// Asked for where the configuration says nothing: every webcam has it.
const DEFAULT_SIZE: [u32; 2] = [640, 480];
/// No JPEG is shorter than its markers.
const LEAST_JPEG: usize = 4;

/// An open camera that streams.
pub struct Camera {
    queue: Queue,
    node: PathBuf,
    card: String,
    format: PixelFormat,
    size: [u32; 2],
    /// Bytes from row to row of the first plane; 0 for JPEG.
    stride: usize,
    /// A frame with fewer bytes is short.
    needed: usize,
    /// The rate that the driver keeps in frames a second, if it says.
    rate: Option<f64>,
    sequence: Sequence,
    counters: Arc<CameraCounters>,
}

impl Camera {
    /// Finds the device by path or card name, sets format, rate and controls, and starts streaming.
    ///
    /// # Errors
    /// [`CaptureError`]; none of them is final, since cameras come and go.
    pub fn open(
        plan: &CameraPlan,
        name: &str,
        wanted: Option<PixelFormat>,
        counters: Arc<CameraCounters>,
    ) -> Result<Self, CaptureError> {
        let path = devices::resolve(name)?;
        let node = Node::open(&path).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTTY) => devices::no_camera(&path),
            _ => failure(&path, "open", error),
        })?;
        let card = devices::check_capture(&node)?;
        let (format, layout) = set_format(&node, wanted, plan)?;
        let rate = set_rate(&node, plan.fps);
        set_controls(&node, &plan.controls)?;
        let (stride, needed) = row_and_frame(format, &layout).map_err(|problem| unusable(&path, problem))?;
        let queue = Queue::start(node.device.handle(), BUFFERS).map_err(|(call, e)| failure(&path, call, e))?;
        let (size, sequence) = (layout.size, Sequence::default());
        Ok(Self { queue, node: path, card, format, size, stride, needed, rate, sequence, counters })
    }
}

impl Source for Camera {
    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        let needed = self.needed;
        let copy = |bytes: &[u8], filled: Filled| {
            let usable = !filled.error && bytes.len() >= needed;
            (filled, bytes.len(), usable.then(|| bytes.to_vec()))
        };
        let taken = self.queue.next(timeout, copy).map_err(|(call, e)| failure(&self.node, call, e))?;
        let Some((filled, length, data)) = taken else { return Ok(Next::Idle) };
        let (sequence, lost) = self.sequence.next(filled.sequence);
        self.counters.lost.add(lost);
        let Some(data) = data else {
            if filled.error {
                self.counters.dropped_error.increment();
            } else {
                self.counters.dropped_short.increment();
                log::debug!("{}: a frame of {length} bytes where {needed} are needed", self.node.display());
            }
            return Ok(Next::Idle);
        };
        self.counters.captured.increment();
        let (format, [width, height], stride) = (self.format, self.size, self.stride);
        let captured = filled.captured;
        Ok(Next::Frame(Frame { format, width, height, stride, data, captured, sequence, origin: None }))
    }

    fn describe(&self) -> String {
        let [width, height] = self.size;
        let rate = self.rate.map(|fps| format!(", {fps:.4} frames a second")).unwrap_or_default();
        format!("{} \"{}\", {:?} {width}x{height}{rate}", self.node.display(), self.card, self.format)
    }
}

/// A driver's 32-bit frame numbers as 64-bit ones that only grow, and the gaps in them.
#[derive(Debug, Default)]
struct Sequence {
    /// The driver's number of the last frame, and ours.
    last: Option<(u32, u64)>,
}

impl Sequence {
    /// Our number of the frame that the driver calls `number`, and how many frames were lost before it.
    fn next(&mut self, number: u32) -> (u64, u64) {
        let (ours, lost) = match self.last {
            None => (u64::from(number), 0),
            Some((last, ours)) => match number.wrapping_sub(last) {
                step @ 1..=0x7fff_ffff => (ours + u64::from(step), u64::from(step) - 1),
                // A driver that does not count, or starts over: nothing is known to be lost.
                _ => (ours + 1, 0),
            },
        };
        self.last = Some((number, ours));
        (ours, lost)
    }
}

fn unusable(node: &Path, problem: String) -> CaptureError {
    CaptureError::Unusable { device: node.display().to_string(), problem }
}

/// A call's failure; that of a device whose node has gone is its absence.
fn failure(node: &Path, call: &'static str, source: io::Error) -> CaptureError {
    let device = node.display().to_string();
    if node.exists() {
        CaptureError::Device { device, call, source }
    } else {
        CaptureError::NoSuchDevice { device, known: devices::names() }
    }
}

/// Asks for the best of the formats that the camera has (see [`choose::best`]) or the configured one, at the size nearest
/// to the configured one.
fn set_format(
    node: &Node,
    wanted: Option<PixelFormat>,
    plan: &CameraPlan,
) -> Result<(PixelFormat, Layout), CaptureError> {
    let size = plan.size.unwrap_or(DEFAULT_SIZE);
    let codes = node.formats().map_err(|e| failure(&node.path, "VIDIOC_ENUM_FMT", e))?;
    let candidates = codes.iter().filter(|&&code| {
        let format = choose::format_of(code);
        format.is_some() && (wanted.is_none() || wanted == format)
    });
    let offers: Vec<_> = candidates
        .map(|&code| {
            let size = choose::nearest(&devices::sizes(node, code), size);
            Offer { code, size, rate: devices::fastest(node, code, size) }
        })
        .collect();
    let Some(best) = choose::best(&offers, size, plan.fps) else {
        let readable: Vec<_> = codes.iter().copied().filter(|&code| choose::format_of(code).is_some()).collect();
        let problem = match wanted {
            Some(wanted) if !readable.is_empty() => {
                let offered = names(&readable);
                format!("does not offer {wanted:?}; it offers {offered}: set format to one of them, or leave it out")
            }
            _ => format!("offers no format that Spotter reads, only {}", names(&codes)),
        };
        return Err(unusable(&node.path, problem));
    };
    let got = node.set_format(best.code, best.size).map_err(|e| failure(&node.path, "VIDIOC_S_FMT", e))?;
    // Asked for one format, a driver may give another one.
    match choose::format_of(got.code) {
        Some(format) if wanted.is_none_or(|wanted| wanted == format) => Ok((format, got)),
        _ => {
            let (got, asked, offered) = (names(&[got.code]), names(&[best.code]), names(&codes));
            Err(unusable(
                &node.path,
                format!("gives {got} where {asked} was asked for; it offers {offered}: set another"),
            ))
        }
    }
}

fn names(codes: &[[u8; 4]]) -> String {
    let names: Vec<_> = codes.iter().map(|&code| choose::name_of(code)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Bytes from row to row, and of a whole frame, in a layout that the driver gave.
fn row_and_frame(format: PixelFormat, layout: &Layout) -> Result<(usize, usize), String> {
    if format == PixelFormat::Jpeg {
        return Ok((0, LEAST_JPEG));
    }
    let [width, height] = layout.size;
    // Some drivers leave the stride 0 where rows are not padded.
    let stride = if layout.stride == 0 { least_stride(format, width as usize) } else { layout.stride as usize };
    match needed_bytes(format, width, height, stride) {
        Ok(needed) => Ok((stride, needed)),
        Err(error) => Err(format!("gives an impossible layout: {error}; set another format or size")),
    }
}

/// Asks for a rate, and gives the one that the driver keeps, if it says.
fn set_rate(node: &Node, fps: Option<f64>) -> Option<f64> {
    if let Some(fps) = fps {
        let interval = v4l::Fraction::new(1000, (fps * 1000.0).round().max(1.0) as u32);
        if let Err(error) = node.device.set_params(&Parameters::new(interval)) {
            log::debug!("{} keeps its own rate: {error}", node.path.display());
        }
    }
    node.device.params().ok().and_then(|kept| devices::rate(kept.interval))
}

/// Sets controls by name. Switches and menus come first: an exposure time takes effect, and is accepted by many drivers,
/// only when the automatic exposure is off.
fn set_controls(node: &Node, wanted: &BTreeMap<String, i64>) -> Result<(), CaptureError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let list = || node.controls().map_err(|e| failure(&node.path, "VIDIOC_QUERY_EXT_CTRL", e));
    let ordered = in_order(&list()?, wanted).map_err(|problem| unusable(&node.path, problem))?;
    for (control, value) in ordered {
        let setting = Control { id: control.id, value: Value::Integer(value) };
        node.device.set_control(setting).map_err(|error| {
            let ControlInfo { name, minimum, maximum, .. } = &control;
            // Looked at only now: an earlier control may have switched this one on or off.
            let inactive = list()
                .is_ok_and(|all| all.iter().any(|c| c.id == control.id && c.flags & V4L2_CTRL_FLAG_INACTIVE != 0));
            let hint = if inactive { "; it is inactive: switch off the automatic that governs it" } else { "" };
            unusable(&node.path, format!("refuses {name} = {value} ({minimum} to {maximum}): {error}{hint}"))
        })?;
    }
    Ok(())
}

/// The wanted controls in the order in which they are set, or what is wrong with the first wrong one.
fn in_order(known: &[ControlInfo], wanted: &BTreeMap<String, i64>) -> Result<Vec<(ControlInfo, i64)>, String> {
    let mut ordered = Vec::new();
    for (name, &value) in wanted {
        let Some(control) = known.iter().find(|c| c.name == *name) else {
            let names: Vec<_> = known.iter().map(|c| &*c.name).collect();
            let names = if names.is_empty() { "no control at all".to_owned() } else { names.join(", ") };
            return Err(format!("has no control \"{name}\"; it has {names}"));
        };
        if control.flags & V4L2_CTRL_FLAG_READ_ONLY != 0 {
            return Err(format!("does not let {name} be set: it can only be read"));
        }
        let (minimum, maximum) = (control.minimum, control.maximum);
        if is_ranged(control) && !(minimum..=maximum).contains(&value) {
            return Err(format!("cannot set {name} = {value}: it takes {minimum} to {maximum}"));
        }
        ordered.push((control.clone(), value));
    }
    ordered.sort_by_key(|(control, _)| !is_switch(control));
    Ok(ordered)
}

/// Boolean (2), menu (3), integer menu (9).
fn is_switch(control: &ControlInfo) -> bool {
    matches!(control.kind, 2 | 3 | 9)
}

/// All but a button (4) and a bit mask (8) lie between minimum and maximum.
fn is_ranged(control: &ControlInfo) -> bool {
    !matches!(control.kind, 4 | 8)
}

#[cfg(test)]
mod tests;
