//! `spotter quantize`: what it makes of small float networks, against onnxruntime's answers for both forms.
//!
//! `tests/reference/quantize_models.py` made the networks, their int8 forms and the answers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use spotter::kernels::Kernel;
use spotter::model::{LoadOptions, Model, ModelFiles};
use spotter::preprocess::{InputTensor, TensorFormat};
use spotter::quantize::{Comparison, Kept, Method, Options, QuantizeError, Report, photos, quantize};

const NAMES: [&str; 4] = ["vgg", "resnet", "mobile", "keras"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn stored(file: &str) -> PathBuf {
    root().join("tests/models/quantize").join(file)
}

fn reference(name: &str) -> Value {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(stored("reference.json")).unwrap()).unwrap();
    all[name].clone()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// A reference photo (`[3][16][16]` in 0..=255) as the model wants it.
fn input(model: &Model, photo: &[f32]) -> InputTensor {
    let value = |v: f32| (v - 128.0) / 64.0;
    match model.input().format {
        TensorFormat::F32Nchw => InputTensor::F32(photo.iter().map(|v| value(*v)).collect()),
        TensorFormat::U8Nhwc { scale, zero_point, channels } => {
            let code = |v: f32| ((value(v) / scale).round_ties_even() + f32::from(zero_point)).clamp(0.0, 255.0) as u8;
            let element = |i: usize| match i % channels {
                3 => zero_point,
                channel => code(photo[channel * 256 + i / channels]),
            };
            InputTensor::U8((0..256 * channels).map(element).collect())
        }
    }
}

fn scores(model: &mut Model, name: &str) -> Vec<Vec<f32>> {
    let photos = reference(name)["photos"].as_array().unwrap().clone();
    photos.iter().map(|p| model.run(&input(model, &floats(p))).unwrap()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn options() -> Options {
    Options {
        method: Method::default(),
        keep_float: Vec::new(),
        quantize_output: false,
        bias_correction: true,
        threads: Some(2),
    }
}

/// Quantises a stored float network by the photos of the repository into `folder`.
fn make(name: &str, folder: &Path, options: &Options) -> Result<(Report, PathBuf), QuantizeError> {
    let all = photos::list(&root().join("tests/photos")).unwrap();
    let split = photos::split(&all, 100, 6);
    let output = folder.join(format!("{name}-int8.onnx"));
    let float = stored(&format!("{name}.onnx"));
    let report = quantize(&float, &split.calibration, &split.held_back, &output, options, &mut |_| ())?;
    Ok((report, output))
}

#[test]
fn stored_int8_models_equal_onnxruntime_on_every_kernel() {
    for name in NAMES {
        let expected = reference(name)["int8"].clone();
        for kernel in Kernel::available() {
            let engine = LoadOptions { engine: Some(kernel.to_string()), threads: Some(2), ..LoadOptions::default() };
            let mut model = Model::load(&stored(&format!("{name}-int8.onnx")), &engine).unwrap();
            for (found, expected) in scores(&mut model, name).iter().zip(expected.as_array().unwrap()) {
                let expected = floats(expected);
                let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far < 1e-3, "{name} on {kernel}: {found:?}, not {expected:?}");
            }
        }
    }
}

#[test]
fn int8_is_close_to_onnxruntimes_float() {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let (report, path) = make(name, folder.path(), &options()).unwrap();
        let Comparison { photos, top1, cosine: close, layers, .. } = report.comparison.unwrap();
        assert_eq!((photos, layers.len()), (6, report.layers), "{name}");
        assert!(top1 == Some(1.0) && close > 0.999, "{name}: {top1:?} {close}");
        assert!(layers.iter().all(|l| l.snr_db > 12.0), "{name}: {layers:?}");
        let mut model = Model::load(&path, &LoadOptions::default()).unwrap();
        for (found, expected) in scores(&mut model, name).iter().zip(reference(name)["float"].as_array().unwrap()) {
            let close = cosine(found, &floats(expected));
            assert!(close > 0.99, "{name}: {close}");
        }
    }
}

/// Whatever can run on our kernels does, and what stays float is named.
#[test]
fn roles_of_the_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, layers: usize, kept: &[&str], foreign: &[&str]| {
        let (report, path) = make(name, folder.path(), &options()).unwrap();
        let ops = |kept: &[Kept]| kept.iter().map(|k| k.op.clone()).collect::<Vec<_>>();
        assert_eq!((report.layers, ops(&report.kept)), (layers, kept.iter().map(|k| (*k).into()).collect()), "{name}");
        let model = Model::load(&path, &LoadOptions::default()).unwrap();
        let found: Vec<&str> = model.load_report().foreign.iter().map(|f| f.op.as_str()).collect();
        assert_eq!(found, foreign, "{name}");
    };
    check("vgg", 5, &["Gemm"], &[]);
    check("resnet", 6, &["Add", "Add", "GlobalAveragePool", "Gemm"], &[]);
    let kept = ["Add", "Add", "GlobalAveragePool", "Sigmoid", "Mul", "GlobalAveragePool", "Gemm"];
    check("mobile", 11, &kept, &["Sigmoid"]);
    // paddings, factors, offsets and transpositions are part of the layers; two batch norms are layers of their own
    check("keras", 6, &["Add", "MatMul", "Add"], &["QuantizeLinearU8"]);
}

#[test]
fn the_same_photos_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |threads: usize| {
        let (_, path) = make("mobile", folder.path(), &Options { threads: Some(threads), ..options() }).unwrap();
        std::fs::read(path).unwrap()
    };
    let one = bytes(1);
    assert!(one == bytes(3));
}

#[test]
fn every_option_gives_a_model_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let check = |options: Options| {
        for name in NAMES {
            let (report, _) = make(name, folder.path(), &options).unwrap();
            let close = report.comparison.unwrap().cosine;
            assert!(close > 0.99, "{name} with {options:?}: {close}");
        }
    };
    check(Options { method: Method::MinMax, ..options() });
    check(Options { method: Method::Percentile, ..options() });
    check(Options { bias_correction: false, ..options() });
    check(Options { quantize_output: true, ..options() });
}

#[test]
fn a_node_is_kept_float_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let keep = |node: &str| make("resnet", folder.path(), &Options { keep_float: vec![node.into()], ..options() });
    let (report, _) = keep("conv_8").unwrap();
    assert_eq!(report.layers, 5);
    assert!(report.kept.iter().any(|k| k.node == "conv_8" && k.why.contains("asked")));
    let error = keep("conv_1000").unwrap_err().to_string();
    assert!(error.contains("conv_1000") && error.contains("like it: conv_1;"), "{error}");
}

#[test]
fn the_manifest_goes_along() {
    let folder = tempfile::tempdir().unwrap();
    let float = folder.path().join("net.onnx");
    std::fs::copy(stored("vgg.onnx"), &float).unwrap();
    std::fs::write(folder.path().join("labels.txt"), "a\nb\nc\nd\ne\nf\ng\n").unwrap();
    let text = std::fs::read_to_string(stored("vgg.toml")).unwrap();
    std::fs::write(folder.path().join("net.toml"), text + "labels = \"labels.txt\"\ntemperature = 0.5\n").unwrap();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let photos = photos::list(&root().join("tests/photos")).unwrap();
    let output = elsewhere.join("net.onnx");
    let run = || quantize(&float, &photos[..3], &[], &output, &options(), &mut |_| ());
    assert!(run().unwrap().comparison.is_none());
    let ModelFiles { manifest, labels } = ModelFiles::beside(&output).unwrap();
    assert_eq!((labels.unwrap().len(), manifest.output.temperature), (7, 0.5));
    assert!(manifest.source.origin.unwrap().contains("3 photos") && manifest.source.sha256.is_some());
    // another model's labels are not overwritten
    std::fs::write(elsewhere.join("labels.txt"), "x\n").unwrap();
    let error = run().unwrap_err().to_string();
    assert!(error.contains("labels.txt") && error.contains("differs"), "{error}");
}

#[test]
fn what_cannot_be_quantised_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let good = root().join("tests/photos/wild_cat/image_0006.jpg");
    let check = |model: &Path, photos: &[PathBuf], parts: &[&str]| {
        let output = folder.path().join("never.onnx");
        let error = quantize(model, photos, &[], &output, &options(), &mut |_| ()).unwrap_err().to_string();
        assert!(parts.iter().all(|p| error.contains(p)), "{parts:?} in: {error}");
        assert!(!output.exists());
    };
    let junk = folder.path().join("junk.jpg");
    std::fs::write(&junk, "no photo").unwrap();
    check(&stored("vgg.onnx"), &[good.clone(), junk], &["junk.jpg"]);
    // an int8 model has no float layer
    check(&stored("vgg-int8.onnx"), std::slice::from_ref(&good), &["vgg-int8.onnx", "no layer", "Gemm"]);
    check(&root().join("Cargo.toml"), &[good], &["Cargo.toml"]);
}

#[test]
fn the_command_prints_one_json_object() {
    let folder = tempfile::tempdir().unwrap();
    let run = |extra: &[&str]| {
        let output = folder.path().join("net.onnx");
        let mut command = Command::new(env!("CARGO_BIN_EXE_spotter"));
        command.args(["quantize", stored("mobile.onnx").to_str().unwrap(), "--calibration"]);
        command.arg(root().join("tests/photos")).arg("--output").arg(&output).args(["--format", "json"]).args(extra);
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    };
    let (code, out, err) = run(&["--photos", "8", "--held-back", "4"]);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["photos"].as_u64(), json["held_back"]["photos"].as_u64()), (Some(8), Some(4)));
    assert_eq!(json["held_back"]["layers"].as_array().unwrap().len(), 11);
    assert!(json["peak_rss_bytes"].as_u64().unwrap() > 0);
    let (code, _, err) = run(&["--keep-float", "gizmo"]);
    assert!(code == Some(2) && err.contains("gizmo"), "{err}");
    assert_eq!(run(&["--photos", "0"]).0, Some(2));
}
