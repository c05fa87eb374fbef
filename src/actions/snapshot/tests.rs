use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::actions::payload::tests::event;
use crate::actions::{ActionContext, Edge, Observer};
use crate::capture::decode::decode_file;
use crate::config::plan::{Area, Orientation, RegionPlan, Rotation};
use crate::rules::Change;

#[derive(Default)]
struct Delivered(Mutex<usize>);

impl Observer for Delivered {
    fn edge(&self, _: &Edge) {}
    fn delivered(&self, _: &str, _: &Event) {
        *self.0.lock().unwrap() += 1;
    }
}

struct Rig {
    handle: ActionHandle,
    delivered: Arc<Delivered>,
}

impl Rig {
    fn new(plan: &SnapshotPlan) -> Self {
        let delivered = Arc::new(Delivered::default());
        let context = ActionContext {
            device: "garden".into(),
            rules: vec![],
            cameras: vec![],
            views: vec![],
            pins: vec![],
            observer: delivered.clone(),
            control: crate::control::Control::new(|| ()),
        };
        Self { handle: spawn("album".into(), plan, &Shared::new(context, &[])).unwrap(), delivered }
    }

    /// An event of `rule` on a frame, and waits until it is done with.
    fn send(&self, rule: &str, picture: Picture) {
        self.handle.send(Message::Pictured(Arc::new(event(rule, Change::On)), Arc::new(picture)));
        self.wait();
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.handle.depth() > 0 {
            assert!(Instant::now() < deadline, "waited in vain");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn plan(folder: &Path) -> SnapshotPlan {
    SnapshotPlan { folder: folder.into(), count: 3, bytes: 1_000_000, quality: 90 }
}

/// A frame of one colour, with a region "perch" (that of the events) in its right half.
fn picture(colour: [u8; 3]) -> Picture {
    let rgb = Rgb { width: 320, height: 160, data: colour.repeat(320 * 160) };
    let perch = RegionPlan { name: "perch".into(), area: Area::Fractions([0.5, 0.0, 0.5, 1.0]) };
    Picture { rgb, orientation: Orientation::default(), regions: vec![perch] }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn near(pixel: &[u8], colour: [u8; 3]) -> bool {
    pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 24)
}

#[test]
fn the_frame_is_written_with_its_region_and_caption() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(&plan(folder.path()));
    let colour = [40, 90, 160];
    rig.send("cat", picture(colour));
    let names = names(folder.path());
    let [name] = names.as_slice() else { panic!("{names:?}") };
    let parts: Vec<&str> = name.split('.').collect();
    assert_eq!((parts[0], &parts[2..]), ("album", &["cat", "wild_cat", "jpg"][..]));
    let shape: String = parts[1].chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "00000000T000000000Z");
    let seen = decode_file(&folder.path().join(name)).unwrap();
    let pixel = |x: u32, y: u32| &seen.data[((y * seen.width + x) * 3) as usize..][..3];
    // The frame, the region's outline, the strip below with bright letters in it.
    assert_eq!(seen.width, 320);
    assert!(seen.height > 160, "{}", seen.height);
    assert!(near(pixel(80, 80), colour), "{:?}", pixel(80, 80));
    assert!(!near(pixel(160, 120), colour), "{:?}", pixel(160, 120));
    let strip = &seen.data[(160 * 320 * 3)..];
    let bright = strip.chunks_exact(3).filter(|pixel| pixel[0] > 180).count();
    assert!(near(pixel(0, seen.height - 1), [18, 21, 27]) && bright > 40, "{bright}");
    assert_eq!((rig.handle.status().health, *rig.delivered.0.lock().unwrap()), (Health::Ready, 1));
    assert!(rig.handle.wants_pictures());
}

#[test]
fn a_turned_camera_gives_an_upright_picture() {
    let turned = Picture { orientation: Orientation { rotate: Rotation::Quarter, flip: None }, ..picture([1, 2, 3]) };
    let (upright, region) = turned.upright(Some("perch"));
    assert_eq!((upright.width, upright.height), (160, 320));
    assert_eq!(region.map(|rect| (rect.left, rect.width)), Some((80, 80)));
    assert_eq!(turned.upright(None).1, None);
    assert_eq!(turned.upright(Some("gone")).1, None);
}

#[test]
fn the_oldest_go_by_number_also_those_of_an_earlier_run_and_nothing_else_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let old = ["album.20200101T000000000Z.cat.x.jpg", "album.20200102T000000000Z.cat.x.jpg"];
    let others = ["album2.20190101T000000000Z.cat.x.jpg", "holiday.jpg", "album.txt"];
    let torn = ".album.20200103T000000000Z.cat.x.jpg.1.2.tmp";
    old.iter().chain(&others).chain([&torn]).for_each(|name| fs::write(folder.path().join(name), "x").unwrap());
    let rig = Rig::new(&plan(folder.path()));
    rig.send("one", picture([10; 3]));
    assert!(names(folder.path()).contains(&old[0].to_owned()), "three fit");
    rig.send("two", picture([10; 3]));
    rig.send("three", picture([10; 3]));
    let names = names(folder.path());
    let rules: Vec<&str> =
        names.iter().filter(|n| n.starts_with("album.2")).map(|n| n.split('.').nth(2).unwrap()).collect();
    assert_eq!(rules, ["one", "two", "three"]);
    assert!(others.iter().all(|name| names.iter().any(|there| there == name)), "{names:?}");
    assert_eq!((names.len(), rig.handle.dropped()), (6, 0));
}

#[test]
fn the_oldest_go_by_bytes_and_what_never_fits_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let event = event("cat", Change::On);
    let size = jpeg(&event, &picture([10; 3]), captured(event.captured), 90).unwrap().len() as u64;
    let rig = Rig::new(&SnapshotPlan { count: 100, bytes: 2 * size + size / 2, ..plan(folder.path()) });
    (0..5).for_each(|_| rig.send("cat", picture([10; 3])));
    assert_eq!((names(folder.path()).len(), rig.handle.dropped()), (2, 0));
    let small = Rig::new(&SnapshotPlan { bytes: size / 2, ..plan(folder.path()) });
    small.send("cat", picture([10; 3]));
    assert_eq!(small.handle.dropped(), 1);
    assert!(small.handle.status().detail.contains("`megabytes`"), "{:?}", small.handle.status());
}

#[test]
fn what_cannot_be_written_is_counted_and_it_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("pictures");
    fs::write(&place, "a file is in the way").unwrap();
    let rig = Rig::new(&plan(&place));
    let status = rig.handle.status();
    assert_eq!(status.health, Health::Degraded, "said at the start");
    assert!(status.detail.contains("pictures cannot be used"), "{}", status.detail);
    rig.send("lost", picture([10; 3]));
    assert_eq!((rig.handle.dropped(), rig.handle.status().since), (1, status.since), "and once");
    fs::remove_file(&place).unwrap();
    rig.send("kept", picture([10; 3]));
    fs::remove_dir_all(&place).unwrap();
    rig.send("lost", picture([10; 3]));
    rig.send("kept", picture([10; 3]));
    assert_eq!((rig.handle.dropped(), rig.handle.status().health), (2, Health::Ready));
    assert_eq!(names(&place).len(), 1);
}

#[test]
fn an_event_without_a_frame_is_counted_and_an_off_is_not_for_us() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(&plan(folder.path()));
    rig.handle.send(Message::Event(Arc::new(event("cat", Change::On))));
    rig.handle.send(Message::Event(Arc::new(event("cat", Change::Off(crate::rules::OffReason::Gone)))));
    rig.wait();
    assert_eq!((rig.handle.dropped(), names(folder.path()).len()), (1, 0));
}
