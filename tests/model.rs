//! The shipped model against onnxruntime, on every kernel that this CPU has, and models that are none.

use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest, Sha256};
use spotter::capture::decode::decode_file;
use spotter::config::plan::{Fit, Orientation};
use spotter::kernels::Kernel;
use spotter::model::{LoadOptions, Model};
use spotter::preprocess::{InputTensor, Preprocessor, Resize};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shipped() -> PathBuf {
    root().join("models/vgg16-gap-caltech101.onnx")
}

fn load(engine: &str) -> Model {
    let options = LoadOptions { engine: Some(engine.to_owned()), threads: Some(2) };
    Model::load(&shipped(), &options).unwrap()
}

/// The tensor of reference picture `index`, which has the input's size already.
fn input(model: &Model, index: usize) -> InputTensor {
    let mut spec = model.input().clone();
    spec.preprocess.resize = Resize::Stretch;
    let rgb = decode_file(&root().join(format!("tests/reference/onnxruntime/{index}.png"))).unwrap();
    let mut tensor = InputTensor::U8(Vec::new());
    Preprocessor::new(&spec, Fit::Crop, Orientation::default()).fill(&rgb, None, &mut tensor).unwrap();
    tensor
}

fn reference() -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("tests/reference/onnxruntime/reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn furthest(scores: &[f32], reference: &Value) -> f64 {
    let expected = reference["scores"].as_array().unwrap();
    assert_eq!(scores.len(), expected.len());
    std::iter::zip(scores, expected).map(|(a, b)| (f64::from(*a) - b.as_f64().unwrap()).abs()).fold(0.0, f64::max)
}

/// Every 8-bit tensor equals onnxruntime's byte for byte, on every kernel; so they are equal among themselves too.
#[test]
fn every_convolution_equals_onnxruntime_on_every_kernel() {
    for kernel in Kernel::available() {
        // Plain scalar code on the whole network is slow without optimisation.
        if kernel == Kernel::Generic && cfg!(debug_assertions) {
            continue;
        }
        let mut model = load(&kernel.to_string());
        for (index, reference) in reference().iter().enumerate() {
            let input = input(&model, index);
            let trace = model.trace(&input).unwrap();
            for layer in reference["layers"].as_array().unwrap() {
                let name = layer["name"].as_str().unwrap();
                let found = trace.iter().find(|(n, _, _)| n == name);
                let (_, shape, codes) = found.unwrap_or_else(|| panic!("{name} was not lowered"));
                let digest: String = Sha256::digest(codes).iter().map(|b| format!("{b:02x}")).collect();
                assert_eq!(digest, layer["sha256"].as_str().unwrap(), "{kernel}: picture {index}: {name} {shape:?}");
            }
            let distance = furthest(&model.run(&input).unwrap(), reference);
            assert!(distance <= 1e-3, "{kernel}: picture {index}: a score is {distance} away");
        }
    }
}

#[test]
fn tracts_own_operators_agree() {
    let mut model = load("tract");
    assert_eq!(model.load_report().lowered, 0);
    for (index, reference) in reference().iter().enumerate() {
        let input = input(&model, index);
        let scores = model.run(&input).unwrap();
        let distance = furthest(&scores, reference);
        assert!(distance <= 0.5, "picture {index}: a score is {distance} away");
    }
}

#[test]
fn timing_and_tracing_do_not_change_the_scores() {
    let mut model = load(&Kernel::best().to_string());
    let input = input(&model, 0);
    let plain = model.run(&input).unwrap();
    let (timed, times) = model.run_timed(&input).unwrap();
    assert_eq!(plain, timed);
    assert_eq!(times.len(), model.layers().len());
}

/// A model file with `bytes` beside a manifest, and the error that it gives.
fn error_of(bytes: &[u8], manifest: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    if let Some(manifest) = manifest {
        std::fs::write(path.with_extension("toml"), manifest).unwrap();
    }
    match Model::load(&path, &LoadOptions::default()) {
        Ok(_) => panic!("it loads"),
        Err(error) => error.to_string(),
    }
}

const MANIFEST: &str = "[input]\nsize = [224, 224]\npreprocess = \"keras-caffe\"\n[output]\nkind = \"logits\"\n";

#[test]
fn a_model_that_is_none_is_an_error() {
    let whole = std::fs::read(shipped()).unwrap();
    let check = |bytes: &[u8], manifest: Option<&str>, expected: &str| {
        let error = error_of(bytes, manifest);
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    };
    check(b"this is not ONNX", Some(MANIFEST), "model.onnx");
    check(b"", Some(MANIFEST), "model.onnx");
    for length in [1, 100, whole.len() / 2, whole.len() - 1] {
        check(&whole[..length], Some(MANIFEST), "model.onnx");
    }
    check(&whole, None, "has no manifest");
    check(&whole, Some(&format!("{MANIFEST}[source]\nsha256 = \"{}\"\n", "0".repeat(64))), "sha256");
    check(&whole, Some(&MANIFEST.replace("size", "sise")), "sise");
    let labels = MANIFEST.replace("kind", "labels = \"model.toml\"\nkind");
    check(&whole, Some(&labels), "101 outputs");
}

#[test]
fn an_unknown_kernel_is_an_error() {
    let options = LoadOptions { engine: Some("abacus".into()), threads: None };
    let error = Model::load(&shipped(), &options).err().unwrap().to_string();
    assert!(error.contains("abacus"), "{error}");
}
