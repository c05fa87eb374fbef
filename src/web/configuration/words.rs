//! Values as people write them, in the words of the configuration.

use std::time::Duration;

use crate::config::plan::{Area, Bias, Flip, GpioBackend, GpioLine, GpioMode, Level, PixelFormat, Rotation, Span};

/// `90s`, `2m`, `500ms`: as the configuration takes it.
pub(super) fn time(time: Duration) -> String {
    let (minutes, seconds, ms) = (time.as_secs() / 60, time.as_secs() % 60, time.subsec_millis());
    match (minutes, seconds, ms) {
        (0, seconds, 0) => format!("{seconds}s"),
        (0, 0, ms) => format!("{ms}ms"),
        (minutes, 0, 0) => format!("{minutes}m"),
        (_, _, 0) => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}

/// A probability, without the dust of 32 bits.
pub(super) fn share(share: f32) -> String {
    let text = format!("{share:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn list<T: AsRef<str>>(items: &[T], nothing: &str) -> String {
    match items {
        [] => nothing.to_owned(),
        items => items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
    }
}

pub(super) fn yes(it: bool) -> &'static str {
    if it { "yes" } else { "no" }
}

pub(super) fn level(level: Level) -> &'static str {
    match level {
        Level::Low => "low",
        Level::High => "high",
    }
}

pub(super) fn bias(bias: Bias) -> &'static str {
    match bias {
        Bias::AsIs => "as-is",
        Bias::PullUp => "pull-up",
        Bias::PullDown => "pull-down",
        Bias::Disabled => "disabled",
    }
}

pub(super) fn backend(backend: GpioBackend) -> String {
    match backend {
        GpioBackend::Chardev => "chardev".into(),
        GpioBackend::Rppal => "rppal".into(),
        GpioBackend::Simulated => "simulated".into(),
        GpioBackend::Pwm { hertz, .. } => format!("pwm, {hertz} Hz"),
    }
}

pub(super) fn line(line: &GpioLine) -> String {
    match line {
        GpioLine::Offset(offset) => offset.to_string(),
        GpioLine::Name(name) => name.clone(),
    }
}

pub(super) fn mode(mode: &GpioMode) -> String {
    match mode {
        GpioMode::Follow => "follow".into(),
        GpioMode::Toggle => "toggle".into(),
        GpioMode::Pulse(length) => format!("pulse of {}", time(*length)),
        GpioMode::Pattern(pattern) => {
            let steps: Vec<_> = pattern.steps.iter().map(|step| time(*step)).collect();
            format!("pattern {}, {} times", steps.join(" "), pattern.repeat)
        }
    }
}

pub(super) fn format(format: PixelFormat) -> &'static str {
    match format {
        PixelFormat::Yuyv => "YUYV",
        PixelFormat::Uyvy => "UYVY",
        PixelFormat::Nv12 => "NV12",
        PixelFormat::I420 => "YU12",
        PixelFormat::Rgb24 => "RGB3",
        PixelFormat::Bgr24 => "BGR3",
        PixelFormat::Grey => "GREY",
        PixelFormat::Jpeg => "MJPG",
    }
}

pub(super) fn rotation(rotation: Rotation) -> u32 {
    match rotation {
        Rotation::None => 0,
        Rotation::Quarter => 90,
        Rotation::Half => 180,
        Rotation::ThreeQuarters => 270,
    }
}

pub(super) fn flip(flip: Flip) -> &'static str {
    match flip {
        Flip::Horizontal => "horizontal",
        Flip::Vertical => "vertical",
    }
}

pub(super) fn area(area: &Area) -> String {
    match area {
        Area::Fractions(sides) => sides.map(|side| side.to_string()).join(", "),
        Area::Pixels(sides) => format!("{} pixels", sides.map(|side| side.to_string()).join(", ")),
    }
}

/// `mon,tue 18:00-06:00`.
pub(super) fn span(span: &Span) -> String {
    let days: Vec<_> = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        .iter()
        .zip(span.days)
        .filter_map(|(day, begins)| begins.then_some(*day))
        .collect();
    let days = if days.len() == 7 { String::new() } else { format!("{} ", days.join(",")) };
    // Midnight as an end is the end of the day.
    let end = match span.end {
        end if end == jiff::civil::Time::midnight() => "24:00".to_owned(),
        end => end.strftime("%H:%M").to_string(),
    };
    format!("{days}{}-{end}", span.start.strftime("%H:%M"))
}

/// A word of a command line without what may be a secret: of a URL only the scheme and the host are left, because cameras
/// take passwords before the host, in the path and in the query alike.
pub(super) fn word_without_secret(word: &str) -> String {
    let Some((before, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let host = host.rfind('@').map_or(host.to_owned(), |at| format!("…{}", &host[at..]));
    let path = if path.len() > 1 { "/…" } else { path };
    format!("{before}://{host}{path}")
}

/// A command line without what may be a secret; the word after an option that speaks of one is hidden whole.
pub(super) fn command(words: &[String]) -> String {
    const TELLING: [&str; 7] = ["password", "passwd", "token", "secret", "key", "header", "auth"];
    let tells = |word: &str| word.starts_with('-') && TELLING.iter().any(|it| word.to_ascii_lowercase().contains(it));
    let mut shown = Vec::with_capacity(words.len());
    let mut hide = false;
    for word in words {
        let (option, joined) = word.split_once('=').map_or((word.as_str(), false), |(option, _)| (option, true));
        shown.push(match std::mem::take(&mut hide) {
            true => "…".to_owned(),
            false if tells(option) && joined => format!("{option}=…"),
            false => word_without_secret(word),
        });
        hide = tells(option) && !joined;
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_shares_are_short() {
        for (ms, text) in [(0, "0s"), (500, "500ms"), (2000, "2s"), (60_000, "1m"), (90_000, "90s"), (1500, "1500ms")] {
            assert_eq!(time(Duration::from_millis(ms)), text);
        }
        assert_eq!((share(0.6), share(1.0), share(0.4 * 2.0 / 3.0)), ("0.6".into(), "1".into(), "0.2667".into()));
    }

    #[test]
    fn a_command_line_keeps_no_secret() {
        for (word, shown) in [
            ("rtsp://admin:s3cret@camera/stream?x=a@b", "rtsp://…@camera/…"),
            ("rtsp://192.168.1.20:554/user=admin_password=s3cret_channel=1.sdp", "rtsp://192.168.1.20:554/…"),
            ("http://camera?pwd=s3cret", "http://camera/…"),
            ("http://camera/", "http://camera/"),
            ("fps=5,scale=640:-1", "fps=5,scale=640:-1"),
        ] {
            assert_eq!(word_without_secret(word), shown);
        }
        let words = ["curl", "-s", "--header", "X-Key: s3cret", "--token=s3cret", "http://a/b"].map(String::from);
        assert_eq!(command(&words), "curl -s --header … --token=… http://a/…");
    }

    #[test]
    fn a_span_reads_as_it_is_written() {
        let time = |hour, minute| jiff::civil::time(hour, minute, 0, 0);
        let span_of = |days, start, end| span(&Span { days, start, end });
        let weekend = [false, false, false, false, false, true, true];
        assert_eq!(span_of(weekend, time(0, 0), time(0, 0)), "sat,sun 00:00-24:00");
        assert_eq!(span_of([true; 7], time(22, 0), time(6, 30)), "22:00-06:30");
    }
}
