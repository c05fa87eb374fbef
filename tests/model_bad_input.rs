//! Damaged, foreign and hostile model files: each an error that names the file and says what to do, never a panic.

use std::path::{Path, PathBuf};

use prost::Message;
use spotter::model::{LoadOptions, Model, ModelError};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

const MANIFEST: &str =
    "[input]\nname = \"input\"\nsize = [16, 16]\npreprocess = \"torchvision\"\n[output]\nkind = \"logits\"\n";

fn small(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)).unwrap()
}

/// A folder with `net.onnx` and, unless it is empty, `net.toml`.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(onnx: &[u8], manifest: &str) -> Case {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("net.onnx"), onnx).unwrap();
        if !manifest.is_empty() {
            std::fs::write(folder.path().join("net.toml"), manifest).unwrap();
        }
        Case { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("net.onnx")
    }

    fn load(&self) -> Result<Model, ModelError> {
        Model::load(&self.path(), &LoadOptions { threads: Some(1), ..LoadOptions::default() })
    }

    /// Loading must fail with a message that holds all of `parts`.
    #[track_caller]
    fn check(&self, parts: &[&str]) {
        let message = self.load().err().expect("it loads").to_string();
        for part in parts {
            assert!(message.contains(part), "`{part}` is missing in: {message}");
        }
    }
}

#[test]
fn a_good_model_loads() {
    let model = Case::new(&small("plain.onnx"), MANIFEST).load().unwrap();
    assert_eq!(model.labels().get(6), Some("6"));
}

#[test]
fn files_that_are_no_models() {
    Case::new(b"", MANIFEST).check(&["net.onnx", "not a readable ONNX file"]);
    Case::new(b"\xff\xd8\xff\xe0 a photo", MANIFEST).check(&["net.onnx", "not a readable ONNX file"]);
    Case::new(b"<html>404</html>", MANIFEST).check(&["net.onnx", "not a readable ONNX file"]);
    Case::new(&vec![0; 100_000], MANIFEST).check(&["net.onnx", "not a readable ONNX file"]);
}

#[test]
fn missing_files() {
    let case = Case::new(&small("plain.onnx"), "");
    // the manifest to start from has the model's own size
    case.check(&["net.toml", "size = [16, 16]", "preprocess = \"torchvision\""]);
    std::fs::remove_file(case.path()).unwrap();
    case.check(&["cannot read the model", "net.onnx", "check the model's path"]);
    let case = Case::new(&small("plain.onnx"), &format!("{MANIFEST}labels = \"none.txt\"\n"));
    case.check(&["labels file", "none.txt", "[output] labels"]);
}

#[test]
fn another_shape_name_or_number_of_classes_than_the_manifest_says() {
    let plain = small("plain.onnx");
    Case::new(&plain, &MANIFEST.replace("[16, 16]", "[32, 24]")).check(&["[1, 3, 16, 16]", "32 x 24", "net.toml"]);
    Case::new(&plain, &MANIFEST.replace("\"input\"", "\"data\"")).check(&["`input`", "`data`", "net.toml"]);
    let case = Case::new(&plain, &format!("{MANIFEST}labels = \"l.txt\"\n"));
    std::fs::write(case.folder.path().join("l.txt"), "a\nb\n").unwrap();
    case.check(&["7 outputs", "l.txt", "2 lines"]);
    std::fs::write(case.folder.path().join("l.txt"), "a\nb\nc\nd\ne\nf\ng\nh\n").unwrap();
    case.check(&["7 outputs", "l.txt", "8 lines"]);
    std::fs::write(case.folder.path().join("l.txt"), "a\nb\nc\nd\ne\nf\ng\n").unwrap();
    assert_eq!(case.load().unwrap().labels().get(2), Some("c"));
}

#[test]
fn another_file_than_the_manifest_promises() {
    let manifest = format!("{MANIFEST}[source]\nsha256 = \"{}\"\n", "0".repeat(64));
    Case::new(&small("plain.onnx"), &manifest).check(&["net.onnx", "sha256", &"0".repeat(64), "incomplete"]);
}

#[test]
fn unknown_kernels() {
    let case = Case::new(&small("plain.onnx"), MANIFEST);
    let load = |name: &str| {
        let options = LoadOptions { engine: Some(name.into()), threads: Some(1), ..LoadOptions::default() };
        Model::load(&case.path(), &options).err().map(|e| e.to_string())
    };
    assert!(load("mmx").unwrap().contains("mmx"));
    let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    assert!(load(foreign).unwrap().contains("available here: generic"));
    assert_eq!(load("generic"), None);
}

#[test]
fn a_wrong_tensor_is_refused() {
    use spotter::preprocess::InputTensor;
    let mut model = Case::new(&small("plain.onnx"), MANIFEST).load().unwrap();
    for wrong in [InputTensor::U8(vec![0; 5]), InputTensor::F32(vec![0.0; 768])] {
        let message = model.run(&wrong).unwrap_err().to_string();
        assert!(message.contains("1024 bytes"), "{message}");
    }
}

#[test]
fn truncated_anywhere() {
    for name in ["plain.onnx", "islands.onnx"] {
        let bytes = small(name);
        for len in (0..bytes.len()).step_by(97) {
            // a cut between two fields may leave a smaller valid graph; it must not panic
            if let Err(error) = Case::new(&bytes[..len], MANIFEST).load() {
                assert!(error.to_string().contains("net.onnx"), "{name} cut at {len}: {error}");
            }
        }
    }
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/vgg16-gap-caltech101.onnx")).unwrap();
    let manifest = MANIFEST.replace("16", "224");
    for len in [1000, bytes.len() / 2, bytes.len() - 1] {
        Case::new(&bytes[..len], &manifest).check(&["net.onnx", "truncated"]);
    }
}

/// `plain.onnx` with something that asks for more than a board has.
fn greedy(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(small("plain.onnx").as_slice()).unwrap();
    change(model.graph.as_mut().unwrap());
    model.encode_to_vec()
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let input = inputs.iter().map(|i| (*i).into()).collect();
    NodeProto { op_type: op.into(), name: output.into(), input, output: vec![output.into()], ..NodeProto::default() }
}

fn shape(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data: values.into(),
        ..TensorProto::default()
    }
}

#[test]
fn graphs_that_ask_for_too_much() {
    let check = |parts: &[&str], change: &dyn Fn(&mut GraphProto)| Case::new(&greedy(change), MANIFEST).check(parts);
    check(&["5042 nodes", "5000"], &|graph| {
        let first = graph.node.len();
        graph.node.extend((first..5042).map(|i| node("Relu", &["input"], &format!("relu_{i}"))));
    });
    for op in ["ConstantOfShape", "Expand", "Tile"] {
        check(&["greedy", op, "too large"], &|graph| {
            let inputs: &[&str] = if op == "ConstantOfShape" { &["shape"] } else { &["input", "shape"] };
            graph.node.push(node(op, inputs, "greedy"));
            graph.initializer.push(shape("shape", &[1 << 20, 1 << 20, 1 << 40]));
        });
    }
    check(&["greedy", "Range", "too large"], &|graph| {
        graph.node.push(node("Range", &["from", "to", "step"], "greedy"));
        graph
            .initializer
            .extend([("from", 0), ("to", i64::MAX), ("step", 1)].map(|(name, value)| shape(name, &[value])));
    });
    // a name such as /dev/zero, or of a file that is nobody's business
    check(&["`far`", "another file"], &|graph| {
        let far = TensorProto { data_location: Some(1), ..shape("far", &[]) };
        graph.initializer.push(far);
    });
    check(&["`odd`", "impossible shape"], &|graph| {
        graph.initializer.push(TensorProto { dims: vec![i64::MAX, 8], ..shape("odd", &[1]) });
    });
}

/// A head of `rows` rows of `columns` weights behind the network's seven scores.
fn headed(rows: i64, columns: i64, weight: f32) -> Vec<u8> {
    greedy(|graph| {
        let scores = std::mem::replace(&mut graph.output[0].name, "taught".into());
        let transposed = AttributeProto { name: "transB".into(), i: 1, r#type: 2, ..AttributeProto::default() };
        let gemm = node("Gemm", &[&scores, "head_W"], "taught");
        graph.node.push(NodeProto { attribute: vec![transposed], ..gemm });
        graph.initializer.push(TensorProto {
            name: "head_W".into(),
            dims: vec![rows, columns],
            data_type: 1,
            raw_data: weight.to_le_bytes().repeat((rows * columns) as usize),
            ..TensorProto::default()
        });
    })
}

/// A taught head is a part of the model's graph.
#[test]
fn damaged_heads() {
    Case::new(&headed(7, 7, 0.5), MANIFEST).load().unwrap();
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        Case::new(&headed(7, 7, odd), MANIFEST).check(&["net.onnx", "head_W", "not finite"]);
    }
    for (rows, columns) in [(7, 9), (7, 6)] {
        Case::new(&headed(rows, columns, 0.5), MANIFEST).check(&["net.onnx"]);
    }
}

/// A few constants that tract would make gigabytes of when it reads the graph.
#[test]
fn constants_that_unfold() {
    let ones = |name: &str, dims: &[i64]| TensorProto {
        name: name.into(),
        dims: dims.into(),
        data_type: 1,
        float_data: vec![1.0; dims.iter().product::<i64>() as usize],
        ..TensorProto::default()
    };
    let refused = |name: &str, nodes: &[NodeProto], constants: &[TensorProto]| {
        let bytes = greedy(|graph| {
            graph.node.extend(nodes.iter().cloned());
            graph.initializer.extend(constants.iter().cloned());
            // read, so that it is made
            let scores = std::mem::replace(&mut graph.output[0].name, "sum".into());
            graph.node.push(node("ReduceMax", &["huge"], "largest"));
            graph.node.push(node("Add", &[&scores, "largest"], "sum"));
        });
        assert!(bytes.len() < 2_000_000);
        let case = Case::new(&bytes, MANIFEST);
        let message = case.load().err().unwrap_or_else(|| panic!("{name} loads")).to_string();
        assert!(message.contains("too large"), "{name}: {message}");
        let photos = [Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos/wild_cat/image_0006.jpg")];
        let output = case.folder.path().join("int8.onnx");
        let options = spotter::quantize::Options {
            method: Default::default(),
            keep_float: Vec::new(),
            quantize_output: false,
            bias_correction: true,
            threads: Some(1),
        };
        let error = spotter::quantize::quantize(&case.path(), &photos, &[], &output, &options, &mut |_| ());
        assert!(error.unwrap_err().to_string().contains("too large"), "{name}, to be quantised");
    };
    let transposed = node("Transpose", &["column"], "row");
    for op in ["MatMul", "Add", "Mul"] {
        let nodes = [transposed.clone(), node(op, &["column", "row"], "huge")];
        refused(op, &nodes, &[ones("column", &[65_536, 1])]);
    }
    let large = shape("shape", &[1 << 10, 1 << 10, 200]);
    refused("ConstantOfShape", &[node("ConstantOfShape", &["shape"], "huge")], std::slice::from_ref(&large));
    refused("Expand", &[node("Expand", &["one", "shape"], "huge")], &[ones("one", &[1]), large.clone()]);
    refused(
        "Tile",
        &[node("Tile", &["some", "times"], "huge")],
        &[ones("some", &[8, 8]), shape("times", &[1024, 1024])],
    );
    refused(
        "Pad",
        &[node("Pad", &["some", "ends"], "huge")],
        &[ones("some", &[1, 1]), shape("ends", &[0, 0, 65_536, 65_536])],
    );
    refused(
        "Gather",
        &[node("Gather", &["some", "which"], "huge")],
        &[ones("some", &[1, 65_536]), shape("which", &[0; 65_536])],
    );
    let scalar = |name: &str, value: i64| TensorProto { dims: Vec::new(), ..shape(name, &[value]) };
    let cast = AttributeProto { name: "to".into(), i: 1, r#type: 2, ..AttributeProto::default() };
    let ranged = [
        node("Mul", &["side", "side"], "area"),
        node("Range", &["from", "area", "step"], "numbers"),
        NodeProto { attribute: vec![cast], ..node("Cast", &["numbers"], "huge") },
    ];
    refused("Range", &ranged, &[scalar("side", 65_536), scalar("from", 0), scalar("step", 1)]);
    // each below any limit for one tensor, and forty of them
    let many: Vec<NodeProto> = (0..40)
        .map(|i| node("ConstantOfShape", &["shape"], &format!("large_{i}")))
        .chain([node("Sum", &["large_0", "large_1"], "huge")])
        .collect();
    refused("many", &many, &[large]);
}

/// Graphs within graphs are checked as the outermost is; no depth exhausts the stack.
#[test]
fn graphs_within_graphs() {
    let nested = |depth: usize, innermost: GraphProto| {
        let branch = |graph: GraphProto| AttributeProto {
            name: "then_branch".into(),
            g: Some(graph),
            r#type: 5,
            ..AttributeProto::default()
        };
        (0..depth).fold(innermost, |graph, _| GraphProto {
            node: vec![NodeProto { attribute: vec![branch(graph)], ..node("If", &["condition"], "y") }],
            ..GraphProto::default()
        })
    };
    let check = |depth: usize, innermost: GraphProto, parts: &[&str]| {
        let bytes = greedy(|graph| graph.node.extend(nested(depth, innermost).node));
        Case::new(&bytes, MANIFEST).check(parts);
    };
    let lies =
        GraphProto { initializer: vec![TensorProto { dims: vec![9], ..shape("lie", &[1]) }], ..GraphProto::default() };
    check(3, lies, &["`lie`", "1 values"]);
    check(12, GraphProto::default(), &["net.onnx", "8 deep"]);
    check(1000, GraphProto::default(), &["net.onnx", "not a readable ONNX file"]);
}

/// Bytes changed at random: loading and running give scores or an error. Every panic inside of tract is contained.
#[test]
fn hostile_bytes() {
    spotter::panics::end_process_on_panic(70, || ());
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    // xorshift64 (Marsaglia 2003)
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    let [mut loaded, mut refused] = [0, 0];
    for name in
        ["plain.onnx", "signed.onnx", "residual.onnx", "dense.onnx", "lookup.onnx", "islands.onnx", "floating.onnx"]
    {
        let original = small(name);
        for _ in 0..60 {
            let mut bytes = original.clone();
            for _ in 0..1 + random(8) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            let case = Case::new(&bytes, MANIFEST);
            match case.load() {
                Ok(mut model) => {
                    loaded += 1;
                    let input = empty(&model);
                    // a refusal while running is as good as scores
                    let _ = model.run(&input);
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(loaded > 20 && refused > 20, "{loaded} loaded, {refused} refused");
}

fn empty(model: &Model) -> spotter::preprocess::InputTensor {
    use spotter::preprocess::{InputTensor, TensorFormat};
    let pixels = model.input().width * model.input().height;
    match model.input().format {
        TensorFormat::U8Nhwc { channels, .. } => InputTensor::U8(vec![128; pixels * channels]),
        TensorFormat::F32Nchw => InputTensor::F32(vec![0.0; pixels * 3]),
    }
}
