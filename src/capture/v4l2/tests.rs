use super::*;

use crate::config::plan::{Fit, Orientation, SourcePlan};

fn plan(device: &str) -> CameraPlan {
    CameraPlan {
        name: "c".into(),
        source: SourcePlan::V4l2 { device: device.into(), format: None },
        size: None,
        fps: None,
        orientation: Orientation::default(),
        fit: Fit::Crop,
        regions: Vec::new(),
        timeout: Duration::from_secs(1),
        stale: Duration::from_secs(1),
        controls: BTreeMap::new(),
        motion: None,
    }
}

#[test]
fn a_camera_that_is_none_is_named_with_the_remedy() {
    for device in ["/dev/null", "/etc/passwd", "/dev/video-none", "No such card"] {
        let error = Camera::open(&plan(device), device, None, Arc::default()).err().unwrap().to_string();
        assert!(error.contains(device) && error.contains("spotter doctor"), "{error}");
    }
}

#[test]
fn gaps_in_the_drivers_numbers_are_lost_frames() {
    let check = |numbers: &[u32], expected: u64| {
        let mut sequence = Sequence::default();
        let lost: u64 = numbers.iter().map(|&n| sequence.next(n).1).sum();
        assert_eq!(lost, expected, "{numbers:?}");
    };
    check(&[0, 1, 2, 3], 0);
    check(&[7, 8, 11, 12], 2);
    check(&[0, 5], 4);
    check(&[u32::MAX - 1, u32::MAX, 0, 2], 1);
    // A driver that does not count, and one that starts over.
    check(&[0, 0, 0], 0);
    check(&[100, 101, 0, 1, 3], 1);
}

#[test]
fn numbers_go_on_past_32_bits() {
    let mut sequence = Sequence::default();
    assert_eq!(sequence.next(u32::MAX), (u64::from(u32::MAX), 0));
    assert_eq!(sequence.next(1), (u64::from(u32::MAX) + 2, 1));
}

#[test]
fn a_layout_is_read_as_the_driver_gives_it() {
    let layout = |size, stride| Layout { code: *b"YUYV", size, stride };
    let row = |format, size, stride| row_and_frame(format, &layout(size, stride)).ok();
    assert_eq!(row(PixelFormat::Yuyv, [640, 480], 1280), Some((1280, 614_400)));
    assert_eq!(row(PixelFormat::Yuyv, [640, 480], 0), Some((1280, 614_400)));
    // The padding of the last row may be missing.
    assert_eq!(row(PixelFormat::Yuyv, [640, 480], 1344), Some((1344, 1344 * 480 - 64)));
    assert_eq!(row(PixelFormat::Jpeg, [640, 480], 0), Some((0, LEAST_JPEG)));
    assert_eq!(row(PixelFormat::Yuyv, [640, 480], 640), None);
    assert_eq!(row(PixelFormat::Yuyv, [0, 480], 640), None);
    assert_eq!(row(PixelFormat::Yuyv, [u32::MAX, u32::MAX], u32::MAX), None);
}

fn control(name: &str, kind: u32, flags: u32) -> ControlInfo {
    ControlInfo { id: 1, name: name.into(), kind, minimum: -5, maximum: 100, flags }
}

#[test]
fn switches_are_set_before_what_they_govern() {
    let known = [
        control("exposure_absolute", 1, 0),
        control("exposure_auto", 3, 0),
        control("focus_absolute", 1, V4L2_CTRL_FLAG_INACTIVE),
        control("focus_automatic_continuous", 2, 0),
    ];
    let wanted = known.iter().map(|c| (c.name.clone(), 1)).collect();
    let order: Vec<_> = in_order(&known, &wanted).unwrap().into_iter().map(|(c, _)| c.name).collect();
    assert_eq!(order, ["exposure_auto", "focus_automatic_continuous", "exposure_absolute", "focus_absolute"]);
}

#[test]
fn a_control_that_cannot_be_set_is_told_with_what_can() {
    let known = [control("gain", 1, 0), control("zoom", 1, V4L2_CTRL_FLAG_READ_ONLY), control("reset", 4, 0)];
    let check = |name: &str, value, expected: Option<&str>| {
        let told = in_order(&known, &BTreeMap::from([(name.to_owned(), value)])).err();
        match (told, expected) {
            (None, None) => {}
            (Some(told), Some(expected)) => assert!(told.contains(expected), "{told}"),
            (told, expected) => panic!("{name} = {value}: {told:?}, not {expected:?}"),
        }
    };
    check("gain", 100, None);
    check("gain", 101, Some("-5 to 100"));
    check("gain", -6, Some("-5 to 100"));
    check("reset", 12345, None);
    check("zoom", 1, Some("only be read"));
    check("brightness", 1, Some("it has gain, zoom, reset"));
}
