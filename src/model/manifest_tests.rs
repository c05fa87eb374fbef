use super::*;

const GOOD: &str = r#"
[input]
name = "input"
size = [224, 200]
preprocess = { resize = 256, crop = [224, 200], order = "bgr", mean = [103.939, 116.779, 123.68], std = [1, 1.0, 1.0], scale = 1.0, filter = "bilinear" }

[output]
kind = "logits"
labels = "labels.txt"
temperature = 0.5

[source]
licence = "CC BY 4.0"
origin = "somewhere"
sha256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
photo = "photo.jpg"
class = "cat"
"#;

fn parse(text: &str) -> Result<Manifest, Problems> {
    Manifest::parse(Path::new("models/m.toml"), text)
}

#[test]
fn a_full_manifest() {
    let manifest = parse(GOOD).unwrap();
    assert_eq!((manifest.width, manifest.height), (224, 200));
    assert_eq!(manifest.input_name.as_deref(), Some("input"));
    let expected = PreprocessSpec {
        resize: Resize::ShorterSide(256),
        filter: Filter::Bilinear,
        order: ChannelOrder::Bgr,
        scale: 1.0,
        mean: [103.939, 116.779, 123.68],
        std: [1.0; 3],
    };
    assert_eq!(manifest.preprocess, expected);
    assert_eq!(manifest.output.kind, OutputKind::Logits);
    assert_eq!(manifest.output.labels.as_deref(), Some(Path::new("models/labels.txt")));
    assert_eq!(manifest.output.temperature, 0.5);
    assert_eq!(manifest.source.sha256.unwrap(), "a".repeat(64));
    let test = manifest.source.self_test.unwrap();
    assert_eq!((test.photo.as_path(), test.class.as_str()), (Path::new("models/photo.jpg"), "cat"));
}

#[test]
fn presets() {
    let with = |name: &str, side: usize| {
        let text = format!("[input]\nsize=[{side},{side}]\npreprocess=\"{name}\"\n[output]\nkind=\"features\"\n");
        parse(&text).unwrap().preprocess
    };
    let torchvision = with("torchvision", 224);
    assert_eq!(torchvision.resize, Resize::ShorterSide(256));
    assert_eq!(torchvision.order, ChannelOrder::Rgb);
    assert_eq!((torchvision.scale, torchvision.mean, torchvision.std), (1.0 / 255.0, TORCHVISION.0, TORCHVISION.1));
    let caffe = with("keras-caffe", 224);
    assert_eq!((caffe.resize, caffe.order, caffe.scale), (Resize::Stretch, ChannelOrder::Bgr, 1.0));
    assert_eq!((caffe.mean, caffe.std), (KERAS_CAFFE, [1.0; 3]));
    // 255 becomes 1, 0 becomes -1
    let tf = with("keras-tf", 96);
    assert_eq!((255.0 * tf.scale - tf.mean[0]) / tf.std[0], 1.0);
    assert_eq!((0.0 * tf.scale - tf.mean[0]) / tf.std[0], -1.0);
}

/// `text` with one replacement must report exactly these (line, key), each with a remedy.
#[track_caller]
fn check(from: &str, to: &str, expected: &[(usize, &str)]) {
    assert!(GOOD.contains(from), "{from}");
    let text = GOOD.replace(from, to);
    let problems = parse(&text).expect_err(to).0;
    let found: Vec<(usize, &str)> = problems.iter().map(|p| (p.line, p.key.as_str())).collect();
    assert_eq!(found, expected, "{to}: {problems:?}");
    for problem in &problems {
        assert!(!problem.remedy.is_empty() && problem.to_string().contains("models/m.toml:"), "{problem}");
    }
}

#[test]
fn every_problem_names_line_and_key() {
    check("[input]", "[input", &[(2, "")]);
    check("size = [224, 200]", "", &[(2, "input.size")]);
    check("size = [224, 200]", "size = [0, 200]", &[(4, "input.size")]);
    check("size = [224, 200]", "size = [224, 99999]", &[(4, "input.size")]);
    check("size = [224, 200]", "size = 224", &[(4, "input.size")]);
    check("size = [224, 200]", "size = [224, 224]", &[(5, "input.preprocess.crop")]);
    check("size = [224, 200]", "size = [224, 200]\nsise = 1", &[(5, "input.sise")]);
    check("resize = 256, ", "", &[(5, "input.preprocess.crop")]);
    check("resize = 256", "resize = 100", &[(5, "input.preprocess.resize")]);
    check("resize = 256", "resize = \"squeeze\"", &[(5, "input.preprocess.resize")]);
    check("order = \"bgr\"", "order = \"gbr\"", &[(5, "input.preprocess.order")]);
    check("scale = 1.0", "scale = 0", &[(5, "input.preprocess.scale")]);
    check("scale = 1.0", "scale = nan", &[(5, "input.preprocess.scale")]);
    check("std = [1, 1.0, 1.0]", "std = [1, 0, 1]", &[(5, "input.preprocess.std")]);
    check("mean = [103.939, 116.779, 123.68]", "mean = [1, 2]", &[(5, "input.preprocess.mean")]);
    check("filter = \"bilinear\"", "filter = \"cubic\"", &[(5, "input.preprocess.filter")]);
    check("filter = \"bilinear\"", "filtre = \"bilinear\"", &[(5, "input.preprocess.filtre")]);
    check("kind = \"logits\"", "", &[(7, "output.kind")]);
    check("kind = \"logits\"", "kind = \"logit\"", &[(8, "output.kind")]);
    check("temperature = 0.5", "temperature = 0", &[(10, "output.temperature")]);
    for absurd in ["nan", "inf", "-1", "1e-9", "1e30"] {
        check("temperature = 0.5", &format!("temperature = {absurd}"), &[(10, "output.temperature")]);
    }
    check("temperature = 0.5", "temperature = \"hot\"", &[(10, "output.temperature")]);
    check("labels = \"labels.txt\"", "labels = \"\"", &[(9, "output.labels")]);
    check("sha256 = \"AA", "sha256 = \"xA", &[(15, "source.sha256")]);
    check("class = \"cat\"", "", &[(16, "source.photo")]);
    check("[source]", "[sauce]", &[(12, "sauce")]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "[input]\nsize = 1\npreprocess = \"magic\"\nx = 1\n[output]\nkind = 3\n";
    let keys: Vec<String> = parse(text).unwrap_err().0.into_iter().map(|p| p.key).collect();
    assert_eq!(keys, ["input.size", "input.preprocess", "input.x", "output.kind"]);
    assert_eq!(parse("").unwrap_err().0.len(), 2);
}

#[test]
fn the_template_is_a_manifest() {
    let guess = Guess { name: "data \"x\"".into(), size: [320, 240] };
    let manifest = parse(&template(&guess)).unwrap();
    assert_eq!((manifest.width, manifest.height), (320, 240));
    assert_eq!(manifest.input_name.as_deref(), Some("data \"x\""));
}

#[test]
fn a_missing_manifest_shows_one_to_start_from() {
    let folder = tempfile::tempdir().unwrap();
    let message = Manifest::beside(&folder.path().join("net.onnx")).unwrap_err().to_string();
    assert!(message.contains("net.toml") && message.contains("preprocess = \"torchvision\""), "{message}");
}
