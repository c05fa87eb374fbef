//! The model against onnxruntime, from identical input tensors, and against itself on every engine.
//!
//! `tests/reference/onnxruntime_reference.py` and `small_models.py` made the references.

use std::path::{Path, PathBuf};

use serde_json::Value;
use spotter::kernels::{Kernel, Kind, Method, Strategy};
use spotter::model::{LoadOptions, Model};
use spotter::preprocess::{InputTensor, TensorFormat};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn vgg16() -> PathBuf {
    root().join("models/vgg16-gap-caltech101.onnx")
}

fn json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

fn options(engine: &str) -> LoadOptions {
    LoadOptions { engine: Some(engine.into()), ..LoadOptions::default() }
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo).
fn fnv1a(bytes: &[u8]) -> String {
    let digest = bytes.iter().fold(0xCBF2_9CE4_8422_2325u64, |d, &b| (d ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    format!("{digest:016x}")
}

/// The codes of a reference photo, channels as the tensor has them.
fn codes(photo: &Value) -> Vec<u8> {
    let path = root().join("tests/reference/onnxruntime").join(photo["codes"].as_str().unwrap());
    image::open(path).unwrap().into_rgb8().into_raw()
}

/// `codes` (three channels a pixel, of the shipped model's first QuantizeLinear) as the model wants them.
fn input(model: &Model, codes: &[u8]) -> InputTensor {
    match model.input().format {
        TensorFormat::U8Nhwc { zero_point, channels, .. } => {
            let padding = vec![zero_point; channels - 3];
            InputTensor::U8(codes.chunks(3).flat_map(|p| [p, &padding].concat()).collect())
        }
        TensorFormat::F32Nchw => {
            let (scale, zero_point) = (1.077_415_7, 115.0);
            let pixels = codes.len() / 3;
            let value = |i: usize| (f32::from(codes[i % pixels * 3 + i / pixels]) - zero_point) * scale;
            InputTensor::F32((0..codes.len()).map(value).collect())
        }
    }
}

#[track_caller]
fn check_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}: score {index} is {a}, not {b}");
    }
}

#[test]
fn all_13_convolutions_equal_onnxruntime_in_every_byte() {
    let mut model = Model::load_unfused(&vgg16(), &LoadOptions::default()).unwrap();
    assert!(matches!(model.input().format, TensorFormat::U8Nhwc { zero_point: 115, channels: 4, .. }));
    let reference = json("tests/reference/onnxruntime/reference.json");
    let photos = reference["photos"].as_array().unwrap();
    assert!(photos.len() >= 2);
    for photo in photos {
        let name = photo["photo"].as_str().unwrap();
        let input = input(&model, &codes(photo));
        let trace = model.trace(&input).unwrap();
        let convolutions = photo["convolutions"].as_array().unwrap();
        assert_eq!(convolutions.len(), 13);
        for expected in convolutions {
            let node = expected["name"].as_str().unwrap();
            let (_, shape, codes) = trace.iter().find(|(n, _, _)| n == node).unwrap_or_else(|| panic!("{node}"));
            assert_eq!(serde_json::json!(shape), expected["shape"], "{node}");
            let [height, width, channels] = *shape;
            let middle = (height / 2 * width + width / 2) * channels;
            assert_eq!(serde_json::json!(codes[middle..middle + 16]), expected["middle"], "{name}, {node}");
            assert_eq!(fnv1a(codes), expected["fnv1a"].as_str().unwrap(), "{name}, {node}");
        }
    }
}

#[test]
fn vgg16_scores_equal_onnxruntime() {
    let mut model = Model::load(&vgg16(), &LoadOptions::default()).unwrap();
    assert_eq!(model.load_report().foreign, []);
    for photo in json("tests/reference/onnxruntime/reference.json")["photos"].as_array().unwrap() {
        let scores = model.run(&input(&model, &codes(photo))).unwrap();
        // the requirement is 0.05; the 8-bit part is equal, and the float head differs in its order of summing only
        check_close(photo["photo"].as_str().unwrap(), &scores, &floats(&photo["scores"]), 1e-4);
        let probabilities = model.probabilities(&scores);
        assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn every_kernel_gives_the_same_bytes() {
    let reference = json("tests/reference/onnxruntime/reference.json");
    let codes = codes(&reference["photos"][0]);
    let mut expected = None;
    // plain scalar code on the whole network is slow without optimisation
    for kernel in Kernel::available().into_iter().filter(|k| *k != Kernel::Generic || !cfg!(debug_assertions)) {
        // an odd number of threads divides the work unevenly
        let options = LoadOptions { engine: Some(kernel.to_string()), threads: Some(3), ..LoadOptions::default() };
        let mut model = Model::load(&vgg16(), &options).unwrap();
        let input = input(&model, &codes);
        let found = (model.trace(&input).unwrap(), model.run(&input).unwrap());
        let expected = expected.get_or_insert_with(|| found.clone());
        assert!(*expected == found, "{kernel} differs from a plainer kernel");
    }
}

#[test]
fn tract_alone_comes_to_the_same_scores() {
    let reference = json("tests/reference/onnxruntime/reference.json");
    let photo = &reference["photos"][1];
    let mut model = Model::load(&vgg16(), &options("tract")).unwrap();
    assert_eq!((model.load_report().lowered, model.input().format), (0, TensorFormat::F32Nchw));
    let scores = model.run(&input(&model, &codes(photo))).unwrap();
    // tract requantises in fixed point: a code here and there differs by one
    check_close("tract", &scores, &floats(&photo["scores"]), 0.15);
}

#[test]
fn timing_names_every_layer() {
    let mut model = Model::load(&vgg16(), &LoadOptions::default()).unwrap();
    let reference = json("tests/reference/onnxruntime/reference.json");
    let input = input(&model, &codes(&reference["photos"][0]));
    let (scores, times) = model.run_timed(&input).unwrap();
    assert_eq!(scores, model.run(&input).unwrap());
    let layers = model.layers();
    assert_eq!(layers.len(), times.len());
    // 15.35 GMAC, and the fourth channel of the picture
    let macs: u64 = layers.iter().map(|l| l.macs).sum();
    assert!((15_346_000_000..15_400_000_000).contains(&macs), "{macs}");
}

/// A preference for one layer changes that layer's algorithm and no byte.
#[test]
fn a_preferred_algorithm_gives_the_same_bytes() {
    let codes = codes(&json("tests/reference/onnxruntime/reference.json")["photos"][0]);
    // where the table has Winograd it can be refused, and elsewhere there is nothing to prefer
    let kernel = Kernel::best();
    if Method::of(kernel, Strategy::Auto, Kind::Square) != Method::Winograd {
        return;
    }
    let load = |layers: &[&str]| {
        let layers = layers.iter().map(|l| l.parse().unwrap()).collect();
        Model::load(&vgg16(), &LoadOptions { layers, ..options(&kernel.to_string()) })
    };
    let algorithms = |model: &Model| model.layers().into_iter().map(|l| (l.name, l.algorithm)).collect::<Vec<_>>();
    let mut plain = load(&[]).unwrap();
    let name = plain.layers().into_iter().find(|l| l.algorithm.starts_with("winograd")).unwrap().name;
    let (before, scores) = (algorithms(&plain), plain.run(&input(&plain, &codes)).unwrap());
    let mut changed = load(&[&format!("{name}=direct")]).unwrap();
    for (before, after) in before.iter().zip(algorithms(&changed)) {
        assert_eq!(*before == after, before.0 != name, "{before:?} {after:?}");
    }
    assert_eq!(changed.run(&input(&changed, &codes)).unwrap(), scores);
    let mut direct = load(&["3x3=direct"]).unwrap();
    assert!(algorithms(&direct).iter().all(|(_, algorithm)| !algorithm.starts_with("winograd")));
    assert_eq!(direct.run(&input(&direct, &codes)).unwrap(), scores);
    let message = load(&["conv=direct"]).err().unwrap().to_string();
    assert!(message.contains("no convolution `conv`") && message.contains(&name), "{message}");
}

/// A small model on every kernel and on tract alone, with the tolerances of ours and of tract. The input is `[3][16][16]` integers.
#[track_caller]
fn check_small(name: &str, lowered: bool, foreign: &[&str], tolerances: [f32; 2]) {
    let reference = &json("tests/models/reference.json")[name];
    let (values, expected) = (floats(&reference["input"]), floats(&reference["scores"]));
    let path = root().join(format!("tests/models/{name}.onnx"));
    for engine in Kernel::available().iter().map(ToString::to_string).chain(["tract".into()]) {
        let mut model = Model::load(&path, &options(&engine)).unwrap();
        let report = model.load_report().clone();
        assert_eq!(report.lowered > 0, lowered && engine != "tract", "{name} on {engine}");
        if engine != "tract" && lowered {
            let names: Vec<&str> = report.foreign.iter().map(|f| f.op.as_str()).collect();
            assert_eq!(names, foreign, "{name}");
        }
        let input = match model.input().format {
            TensorFormat::F32Nchw => InputTensor::F32(values.clone()),
            TensorFormat::U8Nhwc { scale, zero_point, channels } => {
                let code = |v: f32| ((v / scale).round_ties_even() + f32::from(zero_point)).clamp(0.0, 255.0) as u8;
                let element = |i: usize| match i % channels {
                    3 => zero_point,
                    channel => code(values[channel * 256 + i / channels]),
                };
                InputTensor::U8((0..256 * channels).map(element).collect())
            }
        };
        let scores = model.run(&input).unwrap();
        // tract's own requantisation differs from onnxruntime's by a code here and there
        let tolerance = tolerances[usize::from(engine == "tract")];
        check_close(&format!("{name} on {engine}"), &scores, &expected, tolerance);
    }
}

#[test]
fn small_plain() {
    check_small("plain", true, &[], [1e-4, 0.3]);
}

#[test]
fn small_signed() {
    check_small("signed", true, &[], [1e-4, 0.3]);
}

#[test]
fn small_residual() {
    check_small("residual", true, &[], [1e-4, 0.3]);
}

#[test]
fn small_dense() {
    check_small("dense", true, &[], [1e-6, 0.3]);
}

#[test]
fn small_lookup() {
    check_small("lookup", true, &[], [1e-4, 0.3]);
}

#[test]
fn small_islands() {
    // a product of codes multiplies what tract rounds differently, so tract alone is no measure here
    check_small("islands", true, &["Softmax"], [1e-3, f32::INFINITY]);
}

#[test]
fn small_gemm() {
    check_small("gemm", true, &["DequantizeLinearF32", "EinSum", "Add"], [1e-3, 0.3]);
}

/// 32-bit sums, with scales that are constant or found while the network runs: on tract's ops, exact, and said so by name.
#[test]
fn small_integers() {
    for name in ["integers", "dynamic"] {
        check_small(name, false, &[], [1e-4, 1e-4]);
        let model = Model::load(&root().join(format!("tests/models/{name}.onnx")), &options("generic")).unwrap();
        let named = model.load_report().foreign.iter().filter(|f| f.why.is_some_and(|why| why.contains("32-bit sums")));
        let named: Vec<&str> = named.map(|f| f.name.as_str()).collect();
        assert!(
            matches!(named.as_slice(), [conv, matmul] if conv.starts_with("convinteger") && matmul.starts_with("matmulinteger")),
            "{named:?}"
        );
    }
}

#[test]
fn small_floating() {
    check_small("floating", false, &[], [1e-4, 0.3]);
}
