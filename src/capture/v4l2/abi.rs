//! The V4L2 calls that we make ourselves, as safe functions over plain values.
//!
//! The `v4l` crate opens devices, enumerates sizes and rates, and sets rates and controls. Its conversions of the structs
//! below panic on what real drivers answer: a control type that is newer than the crate (vivid since Linux 6.14), a colour
//! space that it does not know, a card name that the kernel cut within a UTF-8 character. A panic ends the daemon, so
//! these four calls are here.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_setfd};
use v4l::Device;
use v4l::device::Handle;
use v4l::v4l_sys::{
    V4L2_CAP_DEVICE_CAPS, V4L2_CTRL_FLAG_DISABLED, V4L2_CTRL_FLAG_NEXT_CTRL, v4l2_capability, v4l2_fmtdesc,
    v4l2_format, v4l2_pix_format, v4l2_query_ext_ctrl,
};
use v4l::v4l2::{self, vidioc};

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`: pictures in one plane of memory.
pub(super) const CAPTURE: u32 = 1;
/// The character devices of video4linux (Documentation/admin-guide/devices.txt).
const VIDEO_MAJOR: u32 = 81;
/// No camera has as many formats or controls; a driver that never ends its list does not hang us.
const LIST_LIMIT: u32 = 1024;

/// An open device.
pub(super) struct Node {
    /// The `v4l` crate's view of it.
    pub(super) device: Device,
    /// Where it was opened.
    pub(super) path: PathBuf,
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// The kernel driver.
    pub(super) driver: String,
    /// The card's name.
    pub(super) card: String,
    /// Where it is plugged in.
    pub(super) bus: String,
    /// `V4L2_CAP_…` of this node (`device_caps`), not of all the nodes of its driver.
    pub(super) flags: u32,
}

/// The layout of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Four-character code.
    pub(super) code: [u8; 4],
    /// Width and height in pixels.
    pub(super) size: [u32; 2],
    /// Bytes from one row to the next in the first plane; some drivers leave it 0.
    pub(super) stride: u32,
}

/// One of a device's controls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ControlInfo {
    /// For the call that sets it.
    pub(super) id: u32,
    /// As `v4l2-ctl` prints it.
    pub(super) name: String,
    /// `V4L2_CTRL_TYPE_…`
    pub(super) kind: u32,
    /// The least value.
    pub(super) minimum: i64,
    /// The greatest value.
    pub(super) maximum: i64,
    /// `V4L2_CTRL_FLAG_…`
    pub(super) flags: u32,
}

impl Node {
    /// Opens a V4L2 node. Anything else is refused before it is opened: opening a watchdog or a tape starts it.
    ///
    /// # Errors
    /// The system's answer; `ENOTTY` ("inappropriate ioctl") for a file that is no video4linux device.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.file_type().is_char_device() || rustix::fs::major(metadata.rdev()) != VIDEO_MAJOR {
            return Err(io::Error::from_raw_os_error(libc::ENOTTY));
        }
        let device = Device::with_path(path)?;
        // The crate opens without O_CLOEXEC: a child process would keep the camera busy after we have closed it.
        fcntl_setfd(descriptor(&device.handle()), FdFlags::CLOEXEC)?;
        Ok(Self { device, path: path.to_owned() })
    }

    /// `VIDIOC_QUERYCAP`
    pub(super) fn capabilities(&self) -> io::Result<Capabilities> {
        // SAFETY: integers and byte arrays, for which all zeroes is valid.
        let mut answer: v4l2_capability = unsafe { std::mem::zeroed() };
        // SAFETY: VIDIOC_QUERYCAP is defined with v4l2_capability.
        unsafe { call(&self.device.handle(), vidioc::VIDIOC_QUERYCAP, &mut answer) }?;
        let of_node = answer.capabilities & V4L2_CAP_DEVICE_CAPS != 0;
        Ok(Capabilities {
            driver: text(&answer.driver),
            card: text(&answer.card),
            bus: text(&answer.bus_info),
            flags: if of_node { answer.device_caps } else { answer.capabilities },
        })
    }

    /// `VIDIOC_ENUM_FMT`: the four-character codes of the formats, in the driver's order.
    pub(super) fn formats(&self) -> io::Result<Vec<[u8; 4]>> {
        let mut codes = Vec::new();
        for index in 0..LIST_LIMIT {
            // SAFETY: integers and byte arrays, for which all zeroes is valid.
            let mut answer: v4l2_fmtdesc = unsafe { std::mem::zeroed() };
            (answer.index, answer.type_) = (index, CAPTURE);
            // SAFETY: VIDIOC_ENUM_FMT is defined with v4l2_fmtdesc.
            match unsafe { call(&self.device.handle(), vidioc::VIDIOC_ENUM_FMT, &mut answer) } {
                Ok(()) => codes.push(answer.pixelformat.to_le_bytes()),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(codes)
    }

    /// `VIDIOC_S_FMT`: asks for a format and size, and gives what the driver made of it. The stride is the driver's.
    pub(super) fn set_format(&self, code: [u8; 4], size: [u32; 2]) -> io::Result<Layout> {
        // SAFETY: integers, and unions of integers and pointers that this buffer type does not use; all zeroes is valid.
        let (mut format, mut picture): (v4l2_format, v4l2_pix_format) = unsafe { std::mem::zeroed() };
        (picture.width, picture.height) = (size[0], size[1]);
        picture.pixelformat = u32::from_le_bytes(code);
        format.type_ = CAPTURE;
        format.fmt.pix = picture;
        // SAFETY: VIDIOC_S_FMT is defined with v4l2_format; for buffer type CAPTURE the kernel follows no pointer in it.
        unsafe { call(&self.device.handle(), vidioc::VIDIOC_S_FMT, &mut format) }?;
        // SAFETY: `pix` is the member of buffer type CAPTURE, and integers are valid whatever their bits.
        let got = unsafe { format.fmt.pix };
        Ok(Layout { code: got.pixelformat.to_le_bytes(), size: [got.width, got.height], stride: got.bytesperline })
    }

    /// `VIDIOC_QUERY_EXT_CTRL`: the controls that hold one number. Headings, texts, and disabled controls are left out.
    pub(super) fn controls(&self) -> io::Result<Vec<ControlInfo>> {
        let (mut controls, mut last) = (Vec::new(), 0);
        for _ in 0..LIST_LIMIT {
            // SAFETY: integers and character arrays, for which all zeroes is valid.
            let mut answer: v4l2_query_ext_ctrl = unsafe { std::mem::zeroed() };
            answer.id = last | V4L2_CTRL_FLAG_NEXT_CTRL;
            // SAFETY: VIDIOC_QUERY_EXT_CTRL is defined with v4l2_query_ext_ctrl.
            match unsafe { call(&self.device.handle(), vidioc::VIDIOC_QUERY_EXT_CTRL, &mut answer) } {
                Ok(()) if answer.id > last => last = answer.id,
                // A driver that does not step on.
                Ok(()) => break,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => break,
                Err(error) => return Err(error),
            }
            if answer.flags & V4L2_CTRL_FLAG_DISABLED == 0 && is_number(answer.type_) {
                // `c_char` is signed on one of our architectures and not on the other.
                let name = answer.name.map(|c| u8::from_ne_bytes(c.to_ne_bytes()));
                controls.push(ControlInfo {
                    id: answer.id,
                    name: control_name(&text(&name)),
                    kind: answer.type_,
                    minimum: answer.minimum,
                    maximum: answer.maximum,
                    flags: answer.flags,
                });
            }
        }
        Ok(controls)
    }
}

/// The descriptor of an open device.
pub(super) fn descriptor(handle: &Handle) -> BorrowedFd<'_> {
    // SAFETY: a `Handle` holds an open descriptor until it is dropped, and the borrow ends before that.
    unsafe { BorrowedFd::borrow_raw(handle.fd()) }
}

/// One ioctl, again when a signal interrupts it.
///
/// # Safety
/// `request` is defined with a `T`, and the pointers in `argument` that it makes the kernel follow are valid.
pub(super) unsafe fn call<T>(handle: &Handle, request: vidioc::_IOC_TYPE, argument: &mut T) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open as long as `handle` lives; `argument` is live and writable, and the caller
        // promises that it is what `request` takes.
        match unsafe { v4l2::ioctl(handle.fd(), request, std::ptr::from_mut(argument).cast()) } {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// A control's name as v4l2-ctl prints it: lower case, runs of other characters as `_`.
pub(super) fn control_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

/// Integer, boolean, menu, button, 64-bit integer, bit mask, integer menu: not a class (6), a text (7) or a compound.
fn is_number(kind: u32) -> bool {
    matches!(kind, 1..=5 | 8 | 9)
}

/// The text before the first zero byte, whatever its bytes are.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_snake_cased_as_v4l2_ctl_does() {
        for (name, expected) in [
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("White Balance Temperature, Auto", "white_balance_temperature_auto"),
            (" Gain (dB) ", "gain_db"),
            ("50Hz", "50hz"),
            ("", ""),
        ] {
            assert_eq!(control_name(name), expected);
        }
    }

    #[test]
    fn a_text_ends_at_its_zero_and_may_be_cut_within_a_character() {
        assert_eq!(text(b"UVC Camera\0\0junk"), "UVC Camera");
        assert_eq!(text(b"Kamera \xc3"), "Kamera \u{fffd}");
        assert_eq!(text(b"no zero"), "no zero");
    }

    #[test]
    fn what_is_no_video_device_is_not_opened() {
        for path in ["/dev/null", "/etc/passwd", "/"] {
            let error = Node::open(Path::new(path)).err().map(|e| e.raw_os_error());
            assert_eq!(error, Some(Some(libc::ENOTTY)), "{path}");
        }
        assert_eq!(Node::open(Path::new("/nowhere")).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
    }
}
