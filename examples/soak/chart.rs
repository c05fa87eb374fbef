//! The samples as a picture: one panel a quantity, grey bands where something was broken on purpose.

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_7X13;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor, WebColors};
use embedded_graphics::primitives::{Line, Primitive, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Alignment, Text};
use spotter::capture::Rgb;

use super::sample::Sample;
use super::verdict::{Verdict, percentile};

const WIDTH: u32 = 1100;
const PANEL: u32 = 200;
const MARGIN: i32 = 70;
const INK: Rgb888 = Rgb888::CSS_DARK_SLATE_GRAY;

/// A curve: its name, its colour, a point a sample.
struct Curve {
    name: &'static str,
    colour: Rgb888,
    points: Vec<(f64, f64)>,
}

struct Canvas(Rgb);

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width, self.0.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(at, colour) in pixels {
            if (0..self.0.width as i32).contains(&at.x) && (0..self.0.height as i32).contains(&at.y) {
                let at = (at.y as usize * self.0.width as usize + at.x as usize) * 3;
                self.0.data[at..at + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

/// Four panels: memory; threads and descriptors; latency; what was dropped.
pub(super) fn draw(samples: &[Sample], verdict: &Verdict) -> Rgb {
    let minutes = |sample: &Sample| sample.at.as_secs_f64() / 60.0;
    let curve = |name, colour, value: &dyn Fn(&Sample) -> f64| Curve {
        name,
        colour,
        points: samples.iter().map(|sample| (minutes(sample), value(sample))).collect(),
    };
    let of_a_minute = |percent: usize| -> Vec<(f64, f64)> {
        let windows = samples.chunks(12).map(|window| {
            let mut pins: Vec<f64> = window.iter().flat_map(|sample| &sample.pins).copied().collect();
            (minutes(&window[0]), percentile(&mut pins, percent))
        });
        windows.filter(|point| point.1.is_finite()).collect()
    };
    let [blue, red, green] = [Rgb888::CSS_STEEL_BLUE, Rgb888::CSS_FIRE_BRICK, Rgb888::CSS_SEA_GREEN];
    let panels = [
        ("resident memory, MB", vec![curve("", blue, &|it| it.process.rss as f64 / 1e6)]),
        (
            "threads and descriptors",
            vec![
                curve("threads", blue, &|it| it.process.threads as f64),
                curve("descriptors", green, &|it| it.process.descriptors as f64),
            ],
        ),
        (
            "capture to pin by the minute, ms",
            vec![
                Curve { name: "p50", colour: blue, points: of_a_minute(50) },
                Curve { name: "p99", colour: red, points: of_a_minute(99) },
            ],
        ),
        (
            "frames that gave way to newer ones, events lost",
            vec![
                curve("frames", blue, &|it| it.metrics.dropped as f64),
                curve("events", red, &|it| it.metrics.lost as f64),
            ],
        ),
    ];
    let height = PANEL * panels.len() as u32 + 20;
    let mut canvas = Canvas(Rgb { width: WIDTH, height, data: vec![255; (WIDTH * height * 3) as usize] });
    let span = samples.last().map_or(1.0, minutes).max(0.1);
    for (index, (title, curves)) in panels.iter().enumerate() {
        let top = index as i32 * PANEL as i32;
        let panel = Panel { top, span };
        panel.bands(&mut canvas, samples);
        panel.warm_up(&mut canvas, verdict.warm.as_secs_f64() / 60.0);
        panel.draw(&mut canvas, title, curves);
    }
    canvas.0
}

/// A part of the picture, and the minutes that it is wide.
struct Panel {
    top: i32,
    span: f64,
}

impl Panel {
    fn x(&self, minute: f64) -> i32 {
        MARGIN + (minute / self.span * f64::from(WIDTH as i32 - MARGIN - 20)) as i32
    }

    fn bottom(&self) -> i32 {
        self.top + PANEL as i32 - 10
    }

    fn bands(&self, canvas: &mut Canvas, samples: &[Sample]) {
        for pair in samples.windows(2).filter(|pair| pair[0].trouble.broker || pair[0].trouble.camera) {
            let colour = if pair[0].trouble.camera { Rgb888::CSS_LIGHT_GRAY } else { Rgb888::CSS_WHITE_SMOKE };
            let [from, to] = [0, 1].map(|at: usize| self.x(pair[at].at.as_secs_f64() / 60.0));
            let corners = Rectangle::with_corners(Point::new(from, self.top + 30), Point::new(to, self.bottom()));
            let Ok(()) = corners.into_styled(PrimitiveStyle::with_fill(colour)).draw(canvas);
        }
    }

    fn warm_up(&self, canvas: &mut Canvas, minutes: f64) {
        let x = self.x(minutes);
        line(canvas, Point::new(x, self.top + 30), Point::new(x, self.bottom()), Rgb888::CSS_ORANGE);
    }

    fn draw(&self, canvas: &mut Canvas, title: &str, curves: &[Curve]) {
        let values = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        if !low.is_finite() {
            return;
        }
        // Never so narrow that noise fills the panel.
        let (low, high) = (low - (high - low) * 0.1 - 0.5, high + (high - low) * 0.1 + 0.5);
        let y = |value: f64| self.bottom() - ((value - low) / (high - low) * f64::from(PANEL as i32 - 45)) as i32;
        line(canvas, Point::new(MARGIN, self.top + 30), Point::new(MARGIN, self.bottom()), INK);
        line(canvas, Point::new(MARGIN, self.bottom()), Point::new(WIDTH as i32 - 20, self.bottom()), INK);
        let mut end = text(canvas, title, Point::new(MARGIN, self.top + 22), INK, Alignment::Left);
        for curve in curves {
            end = text(canvas, curve.name, end + Point::new(20, 0), curve.colour, Alignment::Left);
            for pair in curve.points.windows(2) {
                let [from, to] = [pair[0], pair[1]].map(|(minute, value)| Point::new(self.x(minute), y(value)));
                line(canvas, from, to, curve.colour);
            }
        }
        for value in [low, high] {
            let place = Point::new(MARGIN - 6, (y(value) + 4).clamp(self.top + 36, self.bottom()));
            text(canvas, &format!("{value:.1}"), place, INK, Alignment::Right);
        }
        let minutes = format!("{:.0} min", self.span);
        text(canvas, &minutes, Point::new(WIDTH as i32 - 20, self.top + 22), INK, Alignment::Right);
    }
}

fn line(canvas: &mut Canvas, from: Point, to: Point, colour: Rgb888) {
    let Ok(()) = Line::new(from, to).into_styled(PrimitiveStyle::with_stroke(colour, 1)).draw(canvas);
}

/// Where the text ends.
fn text(canvas: &mut Canvas, text: &str, at: Point, colour: Rgb888, alignment: Alignment) -> Point {
    let Ok(end) = Text::with_alignment(text, at, MonoTextStyle::new(&FONT_7X13, colour), alignment).draw(canvas);
    end
}
