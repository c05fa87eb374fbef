//! What the fuzzer feeds: one function for each place where bytes of a stranger's making come in.
//!
//! Built for the fuzzer (`cfg(fuzzing)`) and for the tests alone. `fuzz/fuzz_targets` has a target of a line for each function;
//! the tests below feed the same functions with the same seeds, and with every input that once broke something
//! (`fuzz/regressions`), on a stable toolchain. A function panics where a promise is broken, and on nothing else.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::capture::{Frame, PixelFormat, Rgb, decode, fuzz_split};
use crate::clock::Monotonic;
use crate::config::plan::{Fit, Orientation};
use crate::model::{LoadOptions, Manifest, Model};
use crate::preprocess::{
    ChannelOrder, Filter, InputSpec, InputTensor, PreprocessSpec, Preprocessor, Resize, TensorFormat,
};
use crate::{actions, config, panics, rules, web};

/// Tells a contained panic, which is an answer, from one that is a finding. To be called once, before the first input.
pub fn start() {
    panics::end_process_on_panic(70, || ());
}

/// The value of the one variable that a fuzzed configuration may name.
const SECRET: &str = "hunter2-hunter2";

/// A configuration: a plan whose rules compile or are refused, or problems. No problem shows a variable's value.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variables = |name: &str| (name == "SECRET").then(|| SECRET.to_owned());
    match config::parse(text, Path::new("/nowhere/spotter.toml"), &variables) {
        Ok(plan) => {
            let _ = rules::compile(&plan, &["wild_cat", "dog", "cup"]);
        }
        Err(problems) => {
            let shown = problems.to_string();
            assert!(text.contains(SECRET) || !shown.contains(SECRET), "a problem shows a secret: {shown}");
        }
    }
}

/// A model's manifest; a preprocessing that it accepts also works.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(manifest) = Manifest::parse(Path::new("/nowhere/net.toml"), text) else { return };
    // A resize by a factor of thousands takes its time, and is allowed.
    if manifest.width * manifest.height > 64 * 64 {
        return;
    }
    see(&manifest.preprocess, [manifest.width, manifest.height], &Rgb { width: 5, height: 3, data: vec![200; 45] });
}

fn see(preprocess: &PreprocessSpec, [width, height]: [usize; 2], rgb: &Rgb) {
    let format = TensorFormat::U8Nhwc { scale: 0.02, zero_point: 117, channels: 4 };
    let input = InputSpec { height, width, format, preprocess: preprocess.clone() };
    let mut tensor = InputTensor::U8(vec![]);
    let seen = Preprocessor::new(&input, Fit::Crop, Orientation::default()).fill(rgb, None, &mut tensor);
    assert!(seen.is_ok(), "{seen:?}");
}

/// A camera's JPEG, or a photo, with Huffman tables or without; and the cutting of a child's stream into such pictures.
pub fn jpeg(data: &[u8]) {
    if decode::check_jpeg(data).is_ok_and(|[width, height]| width * height > 1 << 20) {
        // Decoded as well, but for seconds at a time.
        return;
    }
    let mut rgb = Rgb::default();
    if decode::decode(&frame(PixelFormat::Jpeg, [0, 0], 0, data), &mut rgb).is_ok() {
        assert_eq!(rgb.data.len(), rgb.width as usize * rgb.height as usize * 3);
    }
    if let Ok(rgb) = decode::decode_bytes(data) {
        assert_eq!(rgb.data.len(), rgb.width as usize * rgb.height as usize * 3);
    }
    fuzz_split(PixelFormat::Jpeg, None, data);
}

fn frame(format: PixelFormat, [width, height]: [u32; 2], stride: usize, data: &[u8]) -> Frame {
    let captured = Monotonic::default();
    Frame { format, width, height, stride, data: data.into(), captured, sequence: 0, origin: None }
}

/// Every raw format, of whatever size and stride the first 13 bytes say (little-endian: format, width, height, stride), and
/// the picture as the model sees it.
pub fn raw(data: &[u8]) {
    const FORMATS: [PixelFormat; 7] = [
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::I420,
        PixelFormat::Rgb24,
        PixelFormat::Bgr24,
        PixelFormat::Grey,
    ];
    let Some((header, pixels)) = data.split_first_chunk::<13>() else { return };
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let format = FORMATS[usize::from(header[0]) % FORMATS.len()];
    let (size, stride) = ([number(1), number(5)], number(9) as usize);
    let mut rgb = Rgb::default();
    if decode::decode(&frame(format, size, stride, pixels), &mut rgb).is_ok() {
        assert_eq!(rgb.data.len() as u64, u64::from(size[0]) * u64::from(size[1]) * 3);
        let preprocess = PreprocessSpec {
            resize: Resize::ShorterSide(9),
            filter: Filter::Bilinear,
            order: ChannelOrder::Rgb,
            scale: 1.0,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        see(&preprocess, [8, 8], &rgb);
    }
    fuzz_split(format, Some(size), pixels);
}

/// A model file: it is refused, or it loads, is rewritten for our kernels and gives as many scores as it has outputs.
pub fn onnx(data: &[u8]) {
    const MANIFEST: &str = "[input]\nsize = [16, 16]\npreprocess = \"torchvision\"\n[output]\nkind = \"logits\"\n";
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("spotter-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        std::fs::write(folder.join("net.toml"), MANIFEST).expect("a temporary file");
        folder
    });
    let path = folder.join("net.onnx");
    std::fs::write(&path, data).expect("a temporary file");
    let Ok(mut model) = Model::load(&path, &LoadOptions { threads: Some(1), ..LoadOptions::default() }) else { return };
    let input = match model.input().format {
        TensorFormat::U8Nhwc { channels, .. } => InputTensor::U8(vec![128; 16 * 16 * channels]),
        TensorFormat::F32Nchw => InputTensor::F32(vec![0.0; 16 * 16 * 3]),
    };
    if let Ok(scores) = model.run(&input) {
        assert_eq!(scores.len(), model.outputs());
        assert_eq!(model.probabilities(&scores).len(), model.outputs());
    }
}

/// What a broker sends: packets of either version of the protocol, and messages to our topics.
pub fn mqtt(data: &[u8]) {
    actions::fuzz_mqtt(data);
}

/// What a client writes to the page's port. Without the token nothing is ever asked of the daemon.
pub fn http(data: &[u8]) {
    web::fuzz(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds what `fuzz/seeds` and `fuzz/regressions` keep for a target, the files of `others`, and 200 mutations of each seed.
    fn replay(target: &str, feed: fn(&[u8]), others: &[&str]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = ["seeds", "regressions"].map(|kind| root.join("fuzz").join(kind).join(target));
        let listed = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
        files.extend(others.iter().map(|file| root.join(file)));
        files.sort();
        assert!(!files.is_empty(), "no seed for {target}");
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for file in files {
            let seed = std::fs::read(&file).unwrap();
            feed(&seed);
            for _ in 0..200 {
                feed(&random.mutated(&seed));
            }
        }
    }

    /// xorshift64 (Marsaglia 2003)
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as usize % limit.max(1)
        }

        /// Bytes changed, a piece taken out, a piece doubled.
        fn mutated(&mut self, seed: &[u8]) -> Vec<u8> {
            let mut bytes = seed.to_vec();
            for _ in 0..1 + self.below(4) {
                let at = self.below(bytes.len());
                let end = (at + self.below(40)).min(bytes.len());
                match self.below(3) {
                    0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                    1 => _ = bytes.drain(at..end),
                    _ => {
                        let piece = bytes[at..end].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            bytes
        }
    }

    #[test]
    fn configurations() {
        replay("config", config, &["config/demo.toml", "config/conveyor.toml", "config/bird-feeder.toml"]);
    }

    #[test]
    fn manifests() {
        replay("manifest", manifest, &["models/vgg16-gap-caltech101.toml", "tests/models/plain.toml"]);
    }

    #[test]
    fn jpegs() {
        replay("jpeg", jpeg, &[]);
    }

    #[test]
    fn raw_frames() {
        replay("raw", raw, &[]);
    }

    #[test]
    fn models() {
        replay("onnx", onnx, &["tests/models/plain.onnx", "tests/models/islands.onnx", "tests/models/residual.onnx"]);
    }

    #[test]
    fn messages() {
        replay("mqtt", mqtt, &[]);
    }

    #[test]
    fn requests() {
        replay("http", http, &[]);
    }
}
