//! The whole gate on drawn frames: block means, background, zones and pace together.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::capture::{Frame, PixelFormat};

const NOBODY: Wanted = Wanted { asked: false, rule: false, resting: false };

fn gate(keys: &str) -> Option<Gate> {
    let text = format!("[model]\npath = \"m\"\n[[camera]]\nname = \"c\"\ndevice = \"d\"\n{keys}");
    Gate::new(&crate::config::parse(&text, Path::new("f.toml"), &|_| None).unwrap().cameras[0])
}

/// A frame of 320 x 192 with a texture, and on it a square of 64 pixels whose left edge is at `square`.
fn frame(number: u64, square: Option<usize>) -> Frame {
    let (width, height) = (320, 192);
    let pixel = |x: usize, y: usize| match square {
        Some(left) if (left..left + 64).contains(&x) && (64..128).contains(&y) => 220,
        _ => 60 + (x / 16 * 13 + y / 16 * 29) as u8 % 80 + (x * 7 + y * 3 + number as usize * 5) as u8 % 4,
    };
    let data = (0..height).flat_map(|y| (0..width).map(move |x| pixel(x, y))).collect();
    let captured = at(number);
    let (width, height) = (width as u32, height as u32);
    Frame { format: PixelFormat::Grey, width, height, stride: 320, data, captured, sequence: number, origin: None }
}

/// Ten frames a second.
fn at(number: u64) -> Monotonic {
    Monotonic::from_duration(Duration::from_millis(1000 + 100 * number))
}

fn judge(gate: &mut Gate, frame: &Frame) -> Decision {
    gate.judge(Luma::of_frame(frame).as_ref(), NOBODY, frame.captured)
}

#[test]
fn only_frames_with_something_new_in_them_are_classified() {
    assert!(gate("").is_none());
    let mut gate = gate("motion = { linger = \"300ms\", floor = \"1h\" }").unwrap();
    assert_eq!(judge(&mut gate, &frame(0, None)), Decision::Classify(Reason::Motion));
    for number in 1..50 {
        assert_eq!(judge(&mut gate, &frame(number, None)), Decision::Skip(Skip::Still), "{number}");
    }
    // The very frame in which it comes, each of its way, and 300 ms after it.
    for (number, left) in (50..60).zip((0..).step_by(20)) {
        assert_eq!(judge(&mut gate, &frame(number, Some(left))), Decision::Classify(Reason::Motion), "{number}");
        assert!(gate.is_active(at(number)));
    }
    let after: Vec<_> = (60..70).map(|number| judge(&mut gate, &frame(number, None))).collect();
    let classified = after.iter().take_while(|decision| matches!(decision, Decision::Classify(_))).count();
    assert!((2..=4).contains(&classified), "{after:?}");
    assert!(after[classified..].iter().all(|decision| *decision == Decision::Skip(Skip::Still)), "{after:?}");
    assert!(!gate.is_active(at(69)));
}

#[test]
fn what_moves_under_a_mask_or_outside_of_the_regions_is_nothing() {
    let masked = "motion = { linger = \"100ms\", masks = [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]] }";
    let region = "motion = { linger = \"100ms\" }\nregion = [{ name = \"r\", box = [0.5, 0, 0.5, 1] }]";
    for keys in [masked, region] {
        let mut gate = gate(keys).unwrap();
        (0..20).for_each(|number| _ = judge(&mut gate, &frame(number, None)));
        assert_eq!(judge(&mut gate, &frame(20, Some(40))), Decision::Skip(Skip::Still), "{keys}");
        assert_eq!(judge(&mut gate, &frame(21, Some(150))), Decision::Classify(Reason::Motion), "{keys}");
    }
}

#[test]
fn another_size_and_an_unreadable_frame_are_classified() {
    let mut gate = gate("motion = { linger = \"100ms\" }").unwrap();
    (0..20).for_each(|number| _ = judge(&mut gate, &frame(number, None)));
    let mut small = frame(20, None);
    small.height = 96;
    assert_eq!(judge(&mut gate, &small), Decision::Classify(Reason::Motion));
    let mut short = frame(30, None);
    short.data.truncate(100);
    assert_eq!(judge(&mut gate, &short), Decision::Classify(Reason::Motion), "decoding tells what is wrong with it");
    // Too small for a block.
    let mut tiny = frame(40, None);
    (tiny.width, tiny.height) = (8, 8);
    assert_eq!(judge(&mut gate, &tiny), Decision::Classify(Reason::Motion));
}
