//! Parity with Pillow and numpy from identical RGB pixels: `tests/reference/pillow_vectors.py` makes the vectors.
//!
//! `SPOTTER_PILLOW_VECTORS=DIR` compares with another set than the committed one, such as one of many photos.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use spotter::capture::Rgb;
use spotter::config::plan::{Area, Fit, Flip, Orientation, Rotation};
use spotter::preprocess::{
    ChannelOrder, Filter, InputSpec, InputTensor, PreprocessSpec, Preprocessor, Resize, TensorFormat,
};

#[derive(Deserialize)]
struct Case {
    name: String,
    input: Input,
    spec: Spec,
    #[serde(default = "crop")]
    fit: String,
    #[serde(rename = "box")]
    area: Option<[u32; 4]>,
    #[serde(default)]
    rotate: u32,
    flip: Option<String>,
    /// The whole picture, where it is small,
    expected: Option<String>,
    /// or FNV-1a of its bytes.
    digest: Option<String>,
    /// Convention, channel, row, column, value.
    #[serde(default)]
    samples: Vec<(String, usize, usize, usize, f32)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    File(String),
    Synthetic([u32; 2]),
}

#[derive(Deserialize)]
struct Spec {
    resize: serde_json::Value,
    size: [usize; 2],
    filter: String,
}

fn crop() -> String {
    "crop".into()
}

impl Case {
    fn input_spec(&self, preprocess: PreprocessSpec) -> InputSpec {
        let [width, height] = self.spec.size;
        InputSpec { height, width, format: TensorFormat::F32Nchw, preprocess }
    }

    fn convention(&self, name: &str) -> PreprocessSpec {
        let resize = self.spec.resize.as_u64().map_or(Resize::Stretch, |side| Resize::ShorterSide(side as u32));
        let filter = if self.spec.filter == "nearest" { Filter::Nearest } else { Filter::Bilinear };
        match name {
            "torchvision" => PreprocessSpec {
                resize,
                filter,
                order: ChannelOrder::Rgb,
                scale: 1.0 / 255.0,
                mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225],
            },
            "keras-caffe" => PreprocessSpec {
                resize,
                filter,
                order: ChannelOrder::Bgr,
                scale: 1.0,
                mean: [103.939, 116.779, 123.68],
                std: [1.0; 3],
            },
            other => panic!("no convention {other}"),
        }
    }

    fn fit(&self) -> Fit {
        match self.fit.as_str() {
            "crop" => Fit::Crop,
            "pad" => Fit::Pad,
            "stretch" => Fit::Stretch,
            other => panic!("no fit {other}"),
        }
    }

    fn orientation(&self) -> Orientation {
        let rotate = match self.rotate {
            0 => Rotation::None,
            90 => Rotation::Quarter,
            180 => Rotation::Half,
            270 => Rotation::ThreeQuarters,
            other => panic!("no rotation {other}"),
        };
        let flip = self.flip.as_deref().map(|flip| match flip {
            "horizontal" => Flip::Horizontal,
            "vertical" => Flip::Vertical,
            other => panic!("no flip {other}"),
        });
        Orientation { rotate, flip }
    }
}

fn png(path: &Path) -> Rgb {
    let picture = image::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8();
    Rgb { width: picture.width(), height: picture.height(), data: picture.into_raw() }
}

/// As `synthetic` of the script.
fn synthetic(width: u32, height: u32) -> Rgb {
    let value = |x: u64, y: u64, c: u64| match (x / 16 + y / 16) % 3 {
        0 => {
            let h = x.wrapping_mul(73856093) ^ y.wrapping_mul(19349663) ^ c.wrapping_mul(83492791);
            (h.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
        }
        1 => ((x / 7 + y / 5 + 1) % 2 * 255) as u8,
        _ => (x * 3 + y * 5 + c * 40) as u8,
    };
    let (w, h) = (u64::from(width), u64::from(height));
    let data = (0..h).flat_map(|y| (0..w).flat_map(move |x| (0..3).map(move |c| value(x, y, c)))).collect();
    Rgb { width, height, data }
}

fn fnv1a(data: &[u8]) -> String {
    let hash = data.iter().fold(0xCBF2_9CE4_8422_2325_u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    format!("{hash:016x}")
}

/// Sum and maximum of the absolute differences.
fn difference(a: &Rgb, b: &Rgb) -> (u64, u8) {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let each = a.data.iter().zip(&b.data).map(|(a, b)| a.abs_diff(*b));
    each.fold((0, 0), |(sum, max), d| (sum + u64::from(d), max.max(d)))
}

/// Every picture equals Pillow's, byte for byte; every sampled tensor element numpy's, within a few units in the last place.
#[test]
fn pictures_equal_pillows() {
    let committed = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/pillow"));
    let folder = std::env::var_os("SPOTTER_PILLOW_VECTORS").map_or_else(committed, PathBuf::from);
    let vectors = std::fs::read_to_string(folder.join("vectors.json")).expect("vectors.json");
    let cases: Vec<Case> = serde_json::from_str(&vectors).expect("vectors.json");
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let (mut sum, mut max, mut count, mut wrong) = (0, 0, 0, Vec::new());
    for case in &cases {
        let rgb = match &case.input {
            Input::File(name) => png(&folder.join(name)),
            Input::Synthetic([width, height]) => synthetic(*width, *height),
        };
        let area = case.area.map(Area::Pixels);
        let input = case.input_spec(case.convention("torchvision"));
        let mut preprocessor = Preprocessor::new(&input, case.fit(), case.orientation());
        let picture = preprocessor.view(&rgb, area.as_ref()).expect(&case.name);
        if let Some(expected) = &case.expected {
            let (s, m) = difference(&picture, &png(&folder.join(expected)));
            (sum, max, count) = (sum + s, max.max(m), count + picture.data.len());
            if m > 0 {
                wrong.push(format!("{}: {s} levels in all, {m} at most", case.name));
            }
        } else if case.digest.as_deref() != Some(&fnv1a(&picture.data)) {
            wrong.push(format!("{}: the digest differs", case.name));
        }
        wrong.extend(wrong_samples(case, &rgb, area.as_ref()));
    }
    println!("{} pictures; whole ones: mean difference {}, at most {max}", cases.len(), sum as f64 / count as f64);
    assert!(wrong.is_empty(), "{} of {} differ from Pillow's:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The sampled elements that are not numpy's.
fn wrong_samples(case: &Case, rgb: &Rgb, area: Option<&Area>) -> Vec<String> {
    let mut wrong = Vec::new();
    for convention in ["torchvision", "keras-caffe"] {
        let input = case.input_spec(case.convention(convention));
        let mut tensor = InputTensor::U8(Vec::new());
        let mut preprocessor = Preprocessor::new(&input, case.fit(), case.orientation());
        preprocessor.fill(rgb, area, &mut tensor).expect(&case.name);
        let InputTensor::F32(values) = tensor else { panic!("{}: not floats", case.name) };
        for (_, c, y, x, expected) in case.samples.iter().filter(|s| s.0 == convention) {
            let value = values[(c * input.height + y) * input.width + x];
            if (value - expected).abs() > 1e-6 * expected.abs().max(1.0) {
                wrong.push(format!("{}, {convention} [{c}][{y}][{x}]: {value}, not {expected}", case.name));
            }
        }
    }
    wrong
}
