//! A 1280x720 frame of a camera to the model's input, on one core, and what that is beside an inference.
//!
//! `cargo bench --bench camera -- [--runs N]`
//!
//! The frame is a shipped photo, enlarged and with noise; as JPEG at quality 85 with its chroma at full size (4:4:4), which takes longer to decode than what
//! cameras send (4:2:2). The model is the shipped VGG16, on one thread.
//!
//! | bar | |
//! |---|---|
//! | YUYV to input | at most 3 ms |
//! | JPEG to input | at most 12 ms |

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use spotter::capture::decode::{decode, decode_file};
use spotter::capture::{Frame, PixelFormat, Rgb};
use spotter::clock::Monotonic;
use spotter::config::plan::{Fit, Orientation};
use spotter::model::{LoadOptions, Model};
use spotter::preprocess::{InputTensor, Preprocessor};

type Failure = Box<dyn std::error::Error>;

const SIZE: [u32; 2] = [1280, 720];
const MODEL: &str = "models/vgg16-gap-caltech101.onnx";

/// The photo as a picture of the camera's size, with a sensor's noise: an enlarged photo without it is a JPEG of almost nothing.
fn picture(root: &Path) -> Result<image::RgbImage, Failure> {
    let Rgb { width, height, data } = decode_file(&root.join("tests/photos/cup/image_0007.jpg"))?;
    let photo = image::RgbImage::from_raw(width, height, data).ok_or("a photo without pixels")?;
    let mut picture = image::imageops::resize(&photo, SIZE[0], SIZE[1], FilterType::Triangle);
    let mut state = 1u64;
    for value in picture.iter_mut() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // the sum of two dice, less their mean
        let noise = ((state >> 60) + (state >> 56) % 16) as i16 - 15;
        *value = (i16::from(*value) + noise / 2).clamp(0, 255) as u8;
    }
    Ok(picture)
}

fn frame(format: PixelFormat, stride: usize, data: Vec<u8>) -> Frame {
    let [width, height] = SIZE;
    Frame { format, width, height, stride, data, captured: Monotonic::now(), sequence: 0, origin: None }
}

/// Two pixels in four bytes (BT.601, limited range): the first pixel's chroma serves both.
fn yuyv(picture: &image::RgbImage) -> Frame {
    let code = |[r, g, b]: [u8; 3], [y, u, v]: [f32; 3], base: f32| {
        (base + y * f32::from(r) + u * f32::from(g) + v * f32::from(b)).round().clamp(0.0, 255.0) as u8
    };
    let luma = |pixel| code(pixel, [0.257, 0.504, 0.098], 16.0);
    let pairs = picture.as_raw().as_chunks::<6>().0;
    let data = pairs.iter().flat_map(|&[r, g, b, s, t, c]| {
        let first = [r, g, b];
        let (u, v) = (code(first, [-0.148, -0.291, 0.439], 128.0), code(first, [0.439, -0.368, -0.071], 128.0));
        [luma(first), u, luma([s, t, c]), v]
    });
    frame(PixelFormat::Yuyv, SIZE[0] as usize * 2, data.collect())
}

fn jpeg(picture: &image::RgbImage) -> Result<Frame, Failure> {
    let mut data = Vec::new();
    JpegEncoder::new_with_quality(&mut data, 85).encode_image(picture)?;
    Ok(frame(PixelFormat::Jpeg, 0, data))
}

/// The median of `runs` times, after one that is not counted.
fn median(runs: usize, mut work: impl FnMut() -> Result<(), Failure>) -> Result<Duration, Failure> {
    work()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[runs / 2])
}

fn runs() -> Result<usize, Failure> {
    // `cargo bench` passes `--bench`
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Ok(41),
        ["--runs", number] => Ok(number.parse::<usize>()?.max(1)),
        _ => Err("usage: cargo bench --bench camera -- [--runs N]".into()),
    }
}

fn main() -> Result<ExitCode, Failure> {
    let (runs, root) = (runs()?, Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut model = Model::load(&root.join(MODEL), &LoadOptions { threads: Some(1), ..LoadOptions::default() })?;
    let mut preprocessor = Preprocessor::new(model.input(), Fit::Crop, Orientation::default());
    let (mut rgb, mut input) = (Rgb::default(), InputTensor::U8(Vec::new()));
    let picture = picture(root)?;
    let (yuyv, jpeg) = (yuyv(&picture), jpeg(&picture)?);
    let jpeg_bytes = jpeg.data.len();
    let mut all_within = true;
    let mut rows = Vec::new();
    for (name, frame, bar) in [("YUYV", yuyv, 3.0), ("JPEG", jpeg, 12.0)] {
        let decoding = median(runs, || Ok(decode(&frame, &mut rgb)?))?;
        let filling = median(runs, || Ok(preprocessor.fill(&rgb, None, &mut input)?))?;
        let ms = (decoding + filling).as_secs_f64() * 1e3;
        all_within &= ms <= bar;
        rows.push((name, decoding, filling, ms, bar));
    }
    let inference = median(runs.min(11), || Ok(model.run(&input).map(drop)?))?.as_secs_f64() * 1e3;
    println!(
        "{:5} {:>9} {:>9} {:>9} {:>7} {:>17}",
        "frame", "decode ms", "resize ms", "in all ms", "bar ms", "of an inference"
    );
    for (name, decoding, filling, ms, bar) in rows {
        let [decoding, filling] = [decoding, filling].map(|time| time.as_secs_f64() * 1e3);
        println!("{name:5} {decoding:9.2} {filling:9.2} {ms:9.2} {bar:7.1} {:17.3}", ms / inference);
    }
    let kernel = &model.load_report().kernel;
    println!("an inference: {inference:.1} ms, {kernel} on one thread; the JPEG has {} KB", jpeg_bytes / 1000);
    Ok(if all_within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
