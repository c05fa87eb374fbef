//! What a trunk is worth: heads taught on a few photos a class, judged on photos that no head has seen.
//!
//!   trunks --train DIR --test DIR [--output FIGURE.svg] NAME=TRUNK.onnx…
//!
//! For each trunk (its manifest names the feature tensor) and 5, 10 and 20 photos a class, five seeded choices of photos each teach a head
//! as `spotter teach --without-none --augment off` does. Prints a Markdown table: top-1 on the test photos (mean, smallest to largest),
//! multiplications, milliseconds a photo (the trunks in turns, smallest of 20), megabytes of the file; and draws the figure.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spotter::capture::decode;
use spotter::config::plan::{Fit, Orientation};
use spotter::model::{LoadOptions, Model};
use spotter::preprocess::{InputTensor, Preprocessor};
use spotter::teach::cache::{Cache, key};
use spotter::teach::features::{Example, View, extract};
use spotter::teach::judgement::best;
use spotter::teach::photos::{self, Photo};
use spotter::teach::train::{Labelled, teach};

/// Photos a class.
const COUNTS: [usize; 3] = [5, 10, 20];
const SEEDS: u64 = 5;
/// Runs of each trunk for its time.
const RUNS: usize = 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    let (train, test) = (photos::list(&arguments.train)?, photos::list(&arguments.test)?);
    let mut labels: Vec<&str> = train.iter().map(|photo| photo.label.as_str()).collect();
    labels.dedup();
    let mut trunks = Vec::new();
    for (name, path) in &arguments.trunks {
        let mut trunk = Trunk::load(name, path)?;
        let (train, test) = (trunk.features(&train)?, trunk.features(&test)?);
        trunk.accuracy = COUNTS.map(|count| judge(&train, &test, &labels, count));
        trunks.push(trunk);
    }
    time(&mut trunks, &test[0])?;
    println!("{} classes, {} photos to choose from, {} to judge on", labels.len(), train.len(), test.len());
    println!(
        "\n| trunk | 5 photos a class | 10 | 20 | million multiplications | ms a photo | MB |\n|---|---|---|---|---|---|---|"
    );
    for trunk in &trunks {
        let [few, some, many] = trunk.accuracy.each_ref().map(Spread::text);
        let (macs, ms, megabytes) =
            (trunk.macs / 1_000_000, trunk.fastest.as_secs_f64() * 1e3, trunk.bytes as f64 / 1e6);
        println!("| {} | {few} | {some} | {many} | {macs} | {ms:.1} | {megabytes:.1} |", trunk.name);
    }
    if let Some(path) = &arguments.output {
        spotter::files::write_atomically(path, figure(&trunks).as_bytes())?;
    }
    Ok(())
}

struct Arguments {
    train: PathBuf,
    test: PathBuf,
    output: Option<PathBuf>,
    trunks: Vec<(String, PathBuf)>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Outcome<Arguments> {
        let (mut train, mut test, mut output, mut trunks) = (None, None, None, Vec::new());
        while let Some(word) = words.next() {
            let target = match word.as_str() {
                "--train" => &mut train,
                "--test" => &mut test,
                "--output" => &mut output,
                _ => {
                    let (name, path) = word.split_once('=').ok_or_else(|| format!("{word:?} is no NAME=TRUNK.onnx"))?;
                    trunks.push((name.to_owned(), path.into()));
                    continue;
                }
            };
            *target = Some(PathBuf::from(words.next().ok_or_else(|| format!("{word} wants a value"))?));
        }
        let needed = "trunks --train DIR --test DIR [--output FIGURE.svg] NAME=TRUNK.onnx…";
        match (train, test, trunks.is_empty()) {
            (Some(train), Some(test), false) => Ok(Arguments { train, test, output, trunks }),
            _ => Err(needed.into()),
        }
    }
}

/// Top-1 over the seeds.
#[derive(Clone, Copy, Default)]
struct Spread {
    mean: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(shares: &[f64]) -> Spread {
        Spread {
            mean: shares.iter().sum::<f64>() / shares.len() as f64,
            least: shares.iter().copied().fold(1.0, f64::min),
            most: shares.iter().copied().fold(0.0, f64::max),
        }
    }

    fn text(&self) -> String {
        format!("{:.1} % ({:.1} to {:.1})", self.mean * 100.0, self.least * 100.0, self.most * 100.0)
    }
}

struct Trunk {
    name: String,
    model: Model,
    bytes: u64,
    macs: u64,
    accuracy: [Spread; COUNTS.len()],
    fastest: Duration,
}

impl Trunk {
    fn load(name: &str, path: &Path) -> Outcome<Trunk> {
        let model = Model::load_trunk(path, &LoadOptions::default())?;
        let macs = model.layers().iter().map(|layer| layer.macs).sum();
        let (name, bytes) = (name.to_owned(), std::fs::metadata(path)?.len());
        Ok(Trunk { name, model, bytes, macs, accuracy: Default::default(), fastest: Duration::MAX })
    }

    fn features(&mut self, photos: &[Photo]) -> Outcome<Vec<(Example, String)>> {
        // never written: nothing is asked of it but to be empty
        let folder = std::env::temp_dir().join(format!("spotter-trunks-{}", std::process::id()));
        let mut cache = Cache::open(&folder, key(&[self.name.as_bytes()]));
        let extracted = extract(&mut self.model, &mut cache, photos, &[View::Plain])?;
        std::fs::remove_file(&folder)?;
        let label = |example: Example| {
            let label = photos[example.photo].label.clone();
            (example, label)
        };
        Ok(extracted.examples.into_iter().map(label).collect())
    }
}

/// Heads on `count` photos a class, one for each seed.
fn judge(train: &[(Example, String)], test: &[(Example, String)], labels: &[&str], count: usize) -> Spread {
    let class = |label: &str| labels.iter().position(|l| *l == label);
    let shares: Vec<f64> = (1..=SEEDS)
        .map(|seed| {
            let mut lesson = Vec::new();
            for (class, label) in labels.iter().enumerate() {
                let mut of_class: Vec<&Example> = train.iter().filter(|(_, l)| l == label).map(|(e, _)| e).collect();
                shuffle(&mut of_class, seed * 1000 + class as u64);
                lesson.extend(of_class.into_iter().take(count).map(|example| Labelled { example, class }));
            }
            let taught = teach(&lesson, labels.len(), false);
            let right =
                test.iter().filter(|(e, label)| Some(best(&taught.scores(&e.views[0]))) == class(label)).count();
            right as f64 / test.len() as f64
        })
        .collect();
    Spread::of(&shares)
}

/// Fisher and Yates, by splitmix64 (Steele, Lea, Flood 2014).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    for last in (1..items.len()).rev() {
        items.swap(last, (next() % (last as u64 + 1)) as usize);
    }
}

fn time(trunks: &mut [Trunk], photo: &Photo) -> Outcome<()> {
    let rgb = decode::decode_file(&photo.path)?;
    for _ in 0..RUNS {
        for trunk in trunks.iter_mut() {
            let mut input = InputTensor::U8(Vec::new());
            Preprocessor::new(trunk.model.input(), Fit::Crop, Orientation::default()).fill(&rgb, None, &mut input)?;
            let start = Instant::now();
            trunk.model.run(&input)?;
            trunk.fastest = trunk.fastest.min(start.elapsed());
        }
    }
    Ok(())
}

/// Top-1 over photos a class, a line a trunk, with the spread of the seeds as a bar.
fn figure(trunks: &[Trunk]) -> String {
    const SIZE: [f64; 2] = [640.0, 360.0];
    const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
    let least = trunks.iter().flat_map(|t| &t.accuracy).map(|s| s.least).fold(1.0, f64::min);
    let floor = (least * 20.0).floor() / 20.0;
    let x = |place: usize, trunk: usize| 90.0 + place as f64 * 180.0 + trunk as f64 * 6.0;
    let y = |share: f64| 310.0 - (share - floor) / (1.0 - floor) * 270.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        SIZE[0], SIZE[1]
    );
    // writing to a String cannot fail
    for step in 0..=((1.0 - floor) * 20.0).round() as usize {
        let share = floor + step as f64 / 20.0;
        let at = y(share);
        let _ = writeln!(svg, "<path d=\"M60 {at:.1}H620\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"52\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>", at + 4.0, share * 100.0);
    }
    for (place, count) in COUNTS.iter().enumerate() {
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"332\" text-anchor=\"middle\">{count}</text>", x(place, 1));
    }
    svg += "<text x=\"275\" y=\"352\" text-anchor=\"middle\">photos a class</text>\n<text x=\"60\" y=\"20\">top-1 on photos not seen</text>\n";
    for (index, trunk) in trunks.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut line = String::new();
        for (place, spread) in trunk.accuracy.iter().enumerate() {
            let (at, middle) = (x(place, index), y(spread.mean));
            let _ = write!(line, "{}{at:.1} {middle:.1}", if place == 0 { "M" } else { "L" });
            let (low, high) = (y(spread.least), y(spread.most));
            let _ = writeln!(svg, "<path d=\"M{at:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/>");
            let _ = writeln!(svg, "<circle cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"4\" fill=\"{colour}\"/>");
        }
        let _ = writeln!(svg, "<path d=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        let name_at = 240.0 + index as f64 * 22.0;
        let _ = writeln!(svg, "<circle cx=\"485\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>", name_at - 4.0);
        let _ = writeln!(svg, "<text x=\"496\" y=\"{name_at:.1}\">{}</text>", trunk.name);
    }
    svg + "</svg>\n"
}
