//! V4L2 capture devices: the `v4l` crate for formats and controls, our own [`queue`] for the buffers.

mod devices;
mod queue;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use v4l::control::{Control, Value};
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, FourCC};

use super::decode::{frame_bytes, least_stride};
use super::{CaptureError, Frame, Next, PixelFormat, Source};
use crate::config::plan::CameraPlan;
use crate::telemetry::CameraCounters;
use queue::{Filled, Queue};

pub use devices::{DeviceInfo, list_devices};

/// Enough that one is filled while one is copied and one waits; more would only add latency.
const BUFFERS: u32 = 4;
/// Asked for where the configuration says nothing: every webcam has it.
const DEFAULT_SIZE: [u32; 2] = [640, 480];
/// Up to this many pixels USB 2 carries uncompressed frames at 15 a second and more.
const RAW_PIXELS: u32 = 800 * 600;

/// The four-character codes of our formats, the best of the uncompressed ones first.
const FORMATS: [(PixelFormat, &[u8; 4]); 9] = [
    (PixelFormat::Yuyv, b"YUYV"),
    (PixelFormat::Uyvy, b"UYVY"),
    (PixelFormat::Nv12, b"NV12"),
    (PixelFormat::I420, b"YU12"),
    (PixelFormat::Rgb24, b"RGB3"),
    (PixelFormat::Bgr24, b"BGR3"),
    (PixelFormat::Grey, b"GREY"),
    (PixelFormat::Jpeg, b"MJPG"),
    (PixelFormat::Jpeg, b"JPEG"),
];

/// An open camera that streams.
pub struct Camera {
    // Before the device: buffers are given back while it is open.
    queue: Queue,
    node: PathBuf,
    card: String,
    format: PixelFormat,
    size: [u32; 2],
    stride: usize,
    next_sequence: Option<u32>,
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
        let node = devices::resolve(name)?;
        let device = Device::with_path(&node).map_err(|e| failure(&node, "open", e))?;
        let card = devices::check_capture(&device, &node)?;
        let size = plan.size.unwrap_or(DEFAULT_SIZE);
        let codes = device.enum_formats().map_err(|e| failure(&node, "VIDIOC_ENUM_FMT", e))?;
        let (format, code) = choose(&codes.iter().map(|f| f.fourcc.repr).collect::<Vec<_>>(), wanted, size)
            .map_err(|problem| CaptureError::Unusable { device: node.display().to_string(), problem })?;
        let asked = v4l::Format::new(size[0], size[1], FourCC::new(code));
        let got = device.set_format(&asked).map_err(|e| failure(&node, "VIDIOC_S_FMT", e))?;
        if got.fourcc.repr != *code {
            let problem = format!("gives {} where {} was asked for; set another format", got.fourcc, asked.fourcc);
            return Err(CaptureError::Unusable { device: node.display().to_string(), problem });
        }
        set_rate(&device, plan.fps);
        set_controls(&device, &node, plan)?;
        let stride = (got.stride as usize).max(least_stride(format, got.width as usize));
        let queue = Queue::start(device.handle(), BUFFERS).map_err(|(call, e)| failure(&node, call, e))?;
        let size = [got.width, got.height];
        Ok(Self { queue, node, card, format, size, stride, next_sequence: None, counters })
    }

    /// Counts the frames that the driver numbered and we never got.
    fn count_gap(&mut self, sequence: u32) {
        if let Some(expected) = self.next_sequence {
            // A number behind the expected one is a driver that starts over.
            let gap = sequence.wrapping_sub(expected);
            if gap < u32::MAX / 2 {
                self.counters.lost.add(u64::from(gap));
            }
        }
        self.next_sequence = Some(sequence.wrapping_add(1));
    }
}

impl Source for Camera {
    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        let needed = match self.format {
            PixelFormat::Jpeg => 4,
            // The last row may end with its last pixel.
            format => {
                let slack = self.stride - least_stride(format, self.size[0] as usize);
                frame_bytes(format, self.stride, self.size[1] as usize) - slack
            }
        };
        let copy = |bytes: &[u8], filled: Filled| {
            let usable = !filled.error && bytes.len() >= needed;
            (filled, bytes.len(), usable.then(|| bytes.to_vec()))
        };
        let taken = self.queue.next(timeout, copy).map_err(|(call, e)| failure(&self.node, call, e))?;
        let Some((filled, length, data)) = taken else { return Ok(Next::Idle) };
        self.count_gap(filled.sequence);
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
        let [width, height] = self.size;
        let (format, captured, sequence) = (self.format, filled.captured, u64::from(filled.sequence));
        let stride = if format == PixelFormat::Jpeg { 0 } else { self.stride };
        Ok(Next::Frame(Frame { format, width, height, stride, data, captured, sequence, origin: None }))
    }

    fn describe(&self) -> String {
        let [width, height] = self.size;
        format!("{} \"{}\", {:?} {width}x{height}", self.node.display(), self.card, self.format)
    }
}

fn failure(node: &Path, call: &'static str, source: io::Error) -> CaptureError {
    if source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(libc::ENODEV) {
        return CaptureError::NoSuchDevice { device: node.display().to_string(), known: devices::names() };
    }
    CaptureError::Device { device: node.display().to_string(), call, source }
}

/// The format to ask for: the configured one; otherwise an uncompressed one for small frames, JPEG for large ones, which
/// USB 2 does not carry uncompressed at a useful rate.
fn choose(
    offered: &[[u8; 4]],
    wanted: Option<PixelFormat>,
    size: [u32; 2],
) -> Result<(PixelFormat, &'static [u8; 4]), String> {
    let has = |code: &[u8; 4]| offered.contains(code);
    let small = size[0].saturating_mul(size[1]) <= RAW_PIXELS;
    let mut known: Vec<_> = FORMATS.into_iter().filter(|(_, code)| has(code)).collect();
    if let Some(wanted) = wanted {
        known.retain(|(format, _)| *format == wanted);
    } else {
        known.sort_by_key(|(format, _)| (*format == PixelFormat::Jpeg) == small);
    }
    let names = |codes: &[[u8; 4]]| codes.iter().map(|c| String::from_utf8_lossy(c).into_owned()).collect::<Vec<_>>();
    known.first().copied().ok_or_else(|| match wanted {
        Some(wanted) => format!("does not offer {wanted:?}; it offers {}", names(offered).join(", ")),
        None => format!("offers no format that Spotter reads: {}", names(offered).join(", ")),
    })
}

/// Asks for a rate; drivers that have none keep theirs.
fn set_rate(device: &Device, fps: Option<f64>) {
    let Some(fps) = fps else { return };
    let parameters = Parameters::new(v4l::Fraction::new(1000, (fps * 1000.0).round().max(1.0) as u32));
    if let Err(error) = device.set_params(&parameters) {
        log::debug!("the camera keeps its own rate: {error}");
    }
}

fn set_controls(device: &Device, node: &Path, plan: &CameraPlan) -> Result<(), CaptureError> {
    if plan.controls.is_empty() {
        return Ok(());
    }
    let known = device.query_controls().map_err(|e| failure(node, "VIDIOC_QUERYCTRL", e))?;
    for (name, &value) in &plan.controls {
        let unusable = |problem| CaptureError::Unusable { device: node.display().to_string(), problem };
        let Some(control) = known.iter().find(|c| devices::control_name(&c.name) == *name) else {
            let names: Vec<_> = known.iter().map(|c| devices::control_name(&c.name)).collect();
            return Err(unusable(format!("has no control \"{name}\"; it has {}", names.join(", "))));
        };
        let setting = match control.typ {
            v4l::control::Type::Boolean => Value::Boolean(value != 0),
            _ => Value::Integer(value),
        };
        device.set_control(Control { id: control.id, value: setting }).map_err(|e| {
            unusable(format!("refuses {name} = {value}: {e}; the range is {}..={}", control.minimum, control.maximum))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_the_size_unless_configured() {
        let all = [*b"YUYV", *b"MJPG", *b"H264"];
        let check = |offered: &[[u8; 4]], wanted, size, expected| {
            assert_eq!(choose(offered, wanted, size).map(|(_, code)| code).ok(), expected, "{wanted:?} {size:?}");
        };
        check(&all, None, [640, 480], Some(b"YUYV"));
        check(&all, None, [1280, 720], Some(b"MJPG"));
        check(&all[..1], None, [1280, 720], Some(b"YUYV"));
        check(&all, Some(PixelFormat::Jpeg), [640, 480], Some(b"MJPG"));
        check(&all, Some(PixelFormat::Nv12), [640, 480], None);
        check(&all[2..], None, [640, 480], None);
    }

    #[test]
    fn a_camera_that_is_none_is_named() {
        let error = |name: &str| devices::resolve(name).map(|_| ()).unwrap_err().to_string();
        assert!(error("/dev/video-none").contains("/dev/video-none"));
        assert!(error("No such card").contains("No such card"));
        let node = devices::resolve("/dev/null").unwrap();
        let device = Device::with_path(&node).unwrap();
        let error = devices::check_capture(&device, &node).unwrap_err().to_string();
        assert!(error.contains("/dev/null is no camera"), "{error}");
    }
}
