//! Networks in every form that onnxruntime's `quantize_static` writes: lowered whole, and what onnxruntime makes of them.
//!
//! `tests/reference/import_models.py` made the models and the references.

use std::path::{Path, PathBuf};

use serde_json::Value;
use spotter::kernels::Kernel;
use spotter::model::{LoadOptions, Model};
use spotter::preprocess::{InputTensor, TensorFormat};

const SIDE: usize = 16;
const NETS: [&str; 5] = ["vgg", "resnet", "mobile", "efficient", "squeeze"];
const FORMS: [&str; 5] = ["qdq-s8s8", "qdq-u8s8-channel", "qop-u8u8", "qop-u8s8-channel", "qop-s8s8"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/import")
}

fn references() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("reference.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn load(name: &str, engine: &str) -> Model {
    let options = LoadOptions { engine: Some(engine.into()), threads: Some(2), ..LoadOptions::default() };
    Model::load(&folder().join(format!("{name}.onnx")), &options).unwrap_or_else(|e| panic!("{name} on {engine}: {e}"))
}

/// The picture as the model takes it: `(pixel - 128) / 64`, quantised where the model begins so.
fn input(model: &Model, photo: &[f32]) -> InputTensor {
    let value = |channel: usize, pixel: usize| (photo[channel * SIDE * SIDE + pixel] - 128.0) / 64.0;
    match model.input().format {
        TensorFormat::F32Nchw => {
            InputTensor::F32((0..3 * SIDE * SIDE).map(|i| value(i / (SIDE * SIDE), i % (SIDE * SIDE))).collect())
        }
        TensorFormat::U8Nhwc { scale, zero_point, channels } => {
            let code = |v: f32| ((v / scale).round_ties_even() + f32::from(zero_point)).clamp(0.0, 255.0) as u8;
            let element = |i: usize| match i % channels {
                3 => zero_point,
                channel => code(value(channel, i / channels)),
            };
            InputTensor::U8((0..SIDE * SIDE * channels).map(element).collect())
        }
    }
}

/// Whether codes are onnxruntime's within one unit. A layer reads what the layers before it made, whose differences of one unit add up here and
/// there: one code in twenty may be up to three away.
fn close(found: &[u8], expected: &[f32]) -> bool {
    let away: Vec<f32> = found.iter().zip(expected).map(|(a, b)| (f32::from(*a) - b).abs()).collect();
    let far = away.iter().filter(|a| **a > 1.0).count();
    found.len() == expected.len() && away.iter().all(|a| *a <= 3.0) && far * 20 <= away.len()
}

#[track_caller]
fn check(name: &str) {
    let reference = &references()[name];
    let (photo, expected) = (numbers(&reference["photo"]), numbers(&reference["scores"]));
    let mut bytes = None;
    for kernel in Kernel::available() {
        let mut model = load(name, &kernel.to_string());
        assert_eq!(model.load_report().foreign, [], "{name}: nodes are not lowered");
        let input = input(&model, &photo);
        assert!(matches!(input, InputTensor::U8(_)), "{name}: the picture is not quantised by preprocessing");
        let options = LoadOptions { engine: Some(kernel.to_string()), threads: Some(1), ..LoadOptions::default() };
        // with pools inside of convolutions, nobody sees what the convolution makes
        let mut apart = Model::load_unfused(&folder().join(format!("{name}.onnx")), &options).unwrap();
        let mut found = (apart.trace(&input).unwrap(), model.run(&input).unwrap());
        // the copies for 9-bit weights, which some kernels do not need, are none of the graph's
        found.0.retain(|(node, ..)| !node.ends_with(".twice"));
        assert_eq!(apart.run(&input).unwrap(), found.1, "{name}: fused pools change the scores");
        let scores = &found.1;
        let largest = expected.iter().fold(0f32, |m, s| m.max(s.abs()));
        for (class, (score, wanted)) in scores.iter().zip(&expected).enumerate() {
            // two steps of an output of 8 bits
            assert!((score - wanted).abs() <= largest / 40.0, "{name}: score {class} is {score}, not {wanted}");
        }
        check_layers(name, &found.0, &reference["layers"]);
        assert!(*bytes.get_or_insert_with(|| found.clone()) == found, "{name}: {kernel} differs from a plainer kernel");
    }
    let mut model = load(name, "tract");
    let scores = model.run(&input(&model, &photo)).unwrap();
    let largest = expected.iter().fold(0f32, |m, s| m.max(s.abs()));
    // tract requantises in fixed point, and a difference of one unit grows from layer to layer
    let alike = scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= largest / 8.0);
    assert!(alike, "{name} on tract alone: {scores:?}, not {expected:?}");
}

/// The codes of every layer that shows its own.
#[track_caller]
fn check_layers(name: &str, trace: &[spotter::model::Traced], layers: &Value) {
    let mut compared = 0;
    for (node, shape, codes) in trace {
        // onnxruntime names the codes of an operation by the QuantizeLinear behind it
        let named =
            |key: &&String| *key == node || node.strip_prefix(key.as_str()).is_some_and(|s| s.starts_with("_out"));
        let Some(layer) = layers.as_object().unwrap().iter().find(|(key, _)| named(key)).map(|(_, layer)| layer) else {
            continue;
        };
        let expected = numbers(&layer["codes"]);
        let length = layer["length"].as_u64().unwrap() as usize;
        assert_eq!(shape.iter().product::<usize>(), length, "{name}, {node}");
        let step = (length / 48).max(1);
        let found: Vec<u8> = codes.iter().copied().step_by(step).collect();
        assert!(close(&found, &expected), "{name}, {node}: {found:?}, not {expected:?}");
        compared += 1;
    }
    assert!(compared * 3 >= layers.as_object().unwrap().len() * 2, "{name}: only {compared} layers could be compared");
}

macro_rules! forms {
    ($($test:ident: $form:expr;)*) => {
        $(#[test]
        fn $test() {
            for net in NETS {
                check(&format!("{net}-{}", FORMS[$form]));
            }
        })*
    };
}

forms! {
    qdq_with_signed_codes: 0;
    qdq_with_a_scale_a_channel: 1;
    qoperator_with_unsigned_weights: 2;
    qoperator_with_a_scale_a_channel: 3;
    qoperator_with_signed_codes: 4;
}
