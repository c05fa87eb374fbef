//! `backend = "chardev"`: the kernel's GPIO character device through `gpiocdev`, which speaks uAPI v2 and, where the
//! kernel is older than 5.10 (the Jetson Nano's 4.9), v1.

use std::path::{Path, PathBuf};

use gpiocdev::line::{Direction, Info, Value};
use gpiocdev::{Chip, Request};
use serde::Serialize;

use super::{Cause, GpioError, Line, line_name};
use crate::config::plan::{GpioLine, GpioPlan, Level};

/// One GPIO chip, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChipInfo {
    /// `/dev/gpiochipN`.
    pub path: PathBuf,
    /// The kernel's name: `gpiochipN`. Empty if the chip could not be opened.
    pub name: String,
    /// What kind of chip it is, and the best way to name it: `pinctrl-rp1`. Empty if the chip could not be opened.
    pub label: String,
    /// Its lines, by offset.
    pub lines: Vec<LineInfo>,
    /// Why it could not be opened, and what to try.
    pub error: Option<String>,
}

/// One line of a chip, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineInfo {
    /// Its number on the chip.
    pub offset: u32,
    /// Its name on the board; often empty.
    pub name: String,
    /// Who holds it; empty if nobody does or the holder gave no name.
    pub consumer: String,
    /// It is held and cannot be had.
    pub used: bool,
    /// `"input"` or `"output"`.
    pub direction: &'static str,
}

impl From<Info> for LineInfo {
    fn from(info: Info) -> Self {
        let direction = if info.direction == Direction::Output { "output" } else { "input" };
        Self { offset: info.offset, name: info.name, consumer: info.consumer, used: info.used, direction }
    }
}

/// Every GPIO chip of this board with its lines and who holds them. None: an empty list. A chip that may not be opened
/// is listed with the reason.
///
/// # Errors
/// [`GpioError::Request`] if `/dev` cannot be read.
pub fn list_chips() -> Result<Vec<ChipInfo>, GpioError> {
    Ok(chip_paths()?.into_iter().map(|path| chip_info(&path, true)).collect())
}

fn chip_paths() -> Result<Vec<PathBuf>, GpioError> {
    let failed =
        |error: gpiocdev::Error| GpioError::Request { line: "the list of chips".into(), reason: error.to_string() };
    gpiocdev::chip::chips().map_err(failed)
}

/// `with_lines` asks the kernel about each line, which takes a call a line.
fn chip_info(path: &Path, with_lines: bool) -> ChipInfo {
    let empty = ChipInfo { path: path.into(), name: String::new(), label: String::new(), lines: vec![], error: None };
    let opened = Chip::from_path(path).and_then(|chip| {
        let info = chip.info()?;
        let lines = if with_lines { lines_of(&chip, info.num_lines) } else { vec![] };
        Ok(ChipInfo { name: info.name, label: info.label, lines, ..empty.clone() })
    });
    opened.unwrap_or_else(|error| ChipInfo { error: Some(explain_chip(path, &error).to_string()), ..empty })
}

fn lines_of(chip: &Chip, count: u32) -> Vec<LineInfo> {
    (0..count).filter_map(|offset| chip.line_info(offset).ok()).map(LineInfo::from).collect()
}

/// A requested output.
struct ChardevLine {
    request: Request,
    name: String,
}

pub(super) fn open(plan: &GpioPlan, action: &str) -> Result<Box<dyn Line>, GpioError> {
    let (chip, line) = find(plan.chip.as_deref(), &plan.line)?;
    let name = describe(&chip, &line);
    let request = Request::builder()
        .on_chip(&chip.path)
        .with_consumer(consumer(action))
        .with_line(line.offset)
        .as_output(value(plan.safe))
        .request()
        .map_err(|error| explain_request(&chip, line.offset, &name, &error))?;
    Ok(Box::new(ChardevLine { request, name }))
}

impl Line for ChardevLine {
    fn set(&self, level: Level, _: &Cause) -> Result<(), GpioError> {
        self.request.set_lone_value(value(level)).map_err(|error| self.access("driving", &error))
    }

    fn get(&self) -> Result<Level, GpioError> {
        match self.request.lone_value().map_err(|error| self.access("reading", &error))? {
            Value::Active => Ok(Level::High),
            Value::Inactive => Ok(Level::Low),
        }
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

impl ChardevLine {
    fn access(&self, doing: &'static str, error: &gpiocdev::Error) -> GpioError {
        GpioError::Access { doing, line: self.name.clone(), reason: error.to_string() }
    }
}

/// Levels are electrical: lines are requested active-high, and `active_low` is the driver's business.
fn value(level: Level) -> Value {
    match level {
        Level::Low => Value::Inactive,
        Level::High => Value::Active,
    }
}

/// The kernel keeps 31 bytes of it (GPIO_MAX_NAME_SIZE with its NUL); gpiocdev cuts a longer one in the middle of a
/// letter, so it is cut here.
pub(crate) fn consumer(action: &str) -> String {
    let mut consumer = String::from("spotter:");
    for letter in action.chars() {
        if consumer.len() + letter.len_utf8() > 31 {
            break;
        }
        consumer.push(letter);
    }
    consumer
}

/// The chip and line that the plan names.
pub(crate) fn find(wanted: Option<&str>, line: &GpioLine) -> Result<(ChipInfo, LineInfo), GpioError> {
    let known: Vec<ChipInfo> = chip_paths()?.iter().map(|path| chip_info(path, false)).collect();
    let chips = match wanted {
        Some(chip) => vec![choose_chip(chip, &known)?],
        None => known,
    };
    match (line, chips.as_slice()) {
        (GpioLine::Offset(offset), [chip]) => line_at(chip, *offset),
        (GpioLine::Offset(offset), []) => Err(no_line(&offset.to_string(), &[])),
        (GpioLine::Offset(_), several) => {
            Err(GpioError::AmbiguousChip { chip: "(none named)".into(), candidates: list(several) })
        }
        (GpioLine::Name(name), _) => {
            let searched: Vec<ChipInfo> = chips.iter().map(|chip| chip_info(&chip.path, true)).collect();
            choose_named_line(name, &searched)
        }
    }
}

/// The chip of `wanted`: a path, a kernel's name, or a label.
fn choose_chip(wanted: &str, known: &[ChipInfo]) -> Result<ChipInfo, GpioError> {
    if wanted.starts_with('/') {
        return chip_at(wanted, known);
    }
    let matching: Vec<&ChipInfo> = known.iter().filter(|chip| chip.label == wanted || is_named(chip, wanted)).collect();
    match matching.as_slice() {
        [chip] => refuse_unopened(chip, wanted, known),
        [] => Err(GpioError::NoChip { chip: wanted.into(), available: list(known) }),
        several => Err(GpioError::AmbiguousChip {
            chip: wanted.into(),
            candidates: list(&several.iter().map(|&chip| chip.clone()).collect::<Vec<_>>()),
        }),
    }
}

/// By the device's name, which is known even if it may not be opened.
fn is_named(chip: &ChipInfo, wanted: &str) -> bool {
    chip.path.file_name().is_some_and(|name| name == wanted)
}

/// A path need not be among the known ones: it may be a link, or lie elsewhere than in `/dev`.
fn chip_at(wanted: &str, known: &[ChipInfo]) -> Result<ChipInfo, GpioError> {
    if !Path::new(wanted).exists() {
        return Err(GpioError::NoChip { chip: wanted.into(), available: list(known) });
    }
    refuse_unopened(&chip_info(Path::new(wanted), false), wanted, known)
}

fn refuse_unopened(chip: &ChipInfo, wanted: &str, known: &[ChipInfo]) -> Result<ChipInfo, GpioError> {
    if chip.error.is_none() {
        return Ok(chip.clone());
    }
    // Opened once more for the error as a type.
    match Chip::from_path(&chip.path) {
        Err(error) if errno(&error) == Some(libc::EACCES) => Err(explain_chip(&chip.path, &error)),
        Err(gpiocdev::Error::GpioChip(..)) => Err(GpioError::NoChip { chip: wanted.into(), available: list(known) }),
        Err(error) => Err(explain_chip(&chip.path, &error)),
        Ok(_) => Ok(chip_info(&chip.path, false)),
    }
}

fn line_at(chip: &ChipInfo, offset: u32) -> Result<(ChipInfo, LineInfo), GpioError> {
    let opened = Chip::from_path(&chip.path).map_err(|error| explain_chip(&chip.path, &error))?;
    match opened.line_info(offset) {
        Ok(info) => Ok((chip.clone(), info.into())),
        Err(_) => Err(no_line(&offset.to_string(), std::slice::from_ref(chip))),
    }
}

fn choose_named_line(name: &str, chips: &[ChipInfo]) -> Result<(ChipInfo, LineInfo), GpioError> {
    let lines = chips.iter().flat_map(|chip| chip.lines.iter().map(move |line| (chip, line)));
    let matching: Vec<_> = lines.filter(|(_, line)| line.name == name).collect();
    let quoted = line_name(&GpioLine::Name(name.into()));
    match matching.as_slice() {
        &[(chip, line)] => Ok((chip.clone(), line.clone())),
        [] => Err(no_line(&quoted, chips)),
        several => {
            let candidates: Vec<String> = several.iter().map(|(chip, line)| describe(chip, line)).collect();
            Err(GpioError::AmbiguousLine { line: quoted, candidates: candidates.join(", ") })
        }
    }
}

fn no_line(line: &str, chips: &[ChipInfo]) -> GpioError {
    GpioError::NoLine { line: line.to_owned(), place: list(chips) }
}

/// `/dev/gpiochip0 (pinctrl-rp1), …`
fn list(chips: &[ChipInfo]) -> String {
    let one = |chip: &ChipInfo| match &chip.error {
        None => format!("{} ({})", chip.path.display(), chip.label),
        Some(error) => format!("{} ({error})", chip.path.display()),
    };
    match chips {
        [] => "no GPIO chip at all (is the kernel's GPIO driver loaded, and CONFIG_GPIO_CDEV on?)".into(),
        chips => chips.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

pub(crate) fn describe(chip: &ChipInfo, line: &LineInfo) -> String {
    let name = if line.name.is_empty() { String::new() } else { format!(" \"{}\"", line.name) };
    format!("line {}{name} of {} ({})", line.offset, chip.path.display(), chip.label)
}

fn explain_chip(path: &Path, error: &gpiocdev::Error) -> GpioError {
    match errno(error) {
        Some(libc::EACCES | libc::EPERM) => GpioError::NotPermitted { path: path.display().to_string() },
        _ => GpioError::Request { line: path.display().to_string(), reason: error.to_string() },
    }
}

pub(crate) fn explain_request(chip: &ChipInfo, offset: u32, name: &str, error: &gpiocdev::Error) -> GpioError {
    if errno(error) != Some(libc::EBUSY) {
        return match explain_chip(&chip.path, error) {
            GpioError::Request { reason, .. } => GpioError::Request { line: name.to_owned(), reason },
            other => other,
        };
    }
    let consumer = Chip::from_path(&chip.path).and_then(|chip| chip.line_info(offset)).map(|info| info.consumer);
    let holder = match consumer {
        Ok(consumer) if !consumer.is_empty() => format!("\"{consumer}\""),
        _ => "somebody who gave no name (a kernel driver, or sysfs)".into(),
    };
    GpioError::Busy { line: name.to_owned(), holder }
}

fn errno(error: &gpiocdev::Error) -> Option<i32> {
    match error {
        gpiocdev::Error::Os(errno) | gpiocdev::Error::Uapi(_, gpiocdev_uapi::Error::Os(errno)) => Some(errno.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip(path: &str, label: &str, names: &[&str]) -> ChipInfo {
        let line = |(offset, name): (usize, &&str)| LineInfo {
            offset: offset as u32,
            name: (*name).into(),
            consumer: String::new(),
            used: false,
            direction: "input",
        };
        let name = path.trim_start_matches("/dev/").into();
        let lines = names.iter().enumerate().map(line).collect();
        ChipInfo { path: path.into(), name, label: label.into(), lines, error: None }
    }

    /// A Pi 5 with a USB expander and two chips of one kind.
    fn board() -> Vec<ChipInfo> {
        vec![
            chip("/dev/gpiochip0", "pinctrl-rp1", &["ID_SDA", "GPIO1", "GPIO2"]),
            chip("/dev/gpiochip10", "gpio-brcmstb", &["", "SHARED"]),
            chip("/dev/gpiochip11", "gpio-brcmstb", &["", "SHARED"]),
        ]
    }

    #[test]
    fn a_chip_is_found_by_label_or_name() {
        for (wanted, expected) in [
            ("pinctrl-rp1", Ok("/dev/gpiochip0")),
            ("gpiochip11", Ok("/dev/gpiochip11")),
            ("gpio-brcmstb", Err("ambiguous: /dev/gpiochip10 (gpio-brcmstb), /dev/gpiochip11 (gpio-brcmstb) match")),
            ("pinctrl-bcm2711", Err("this board has /dev/gpiochip0 (pinctrl-rp1), /dev/gpiochip10")),
            ("gpiochip4", Err("Pi 5 went from gpiochip4 to gpiochip0")),
            ("/dev/gpiochip4", Err("name the chip by its label (Pi 5: pinctrl-rp1")),
            ("/dev/null", Err("there is no GPIO chip \"/dev/null\"")),
            ("rp1", Err("no GPIO chip \"rp1\"")),
        ] {
            let found = choose_chip(wanted, &board());
            match expected {
                Ok(path) => assert_eq!(found.unwrap().path, Path::new(path)),
                Err(words) => {
                    let message = found.unwrap_err().to_string();
                    assert!(message.contains(words), "{wanted}: {message}");
                }
            }
        }
    }

    #[test]
    fn a_board_without_chips_says_so() {
        let message = choose_chip("pinctrl-rp1", &[]).unwrap_err().to_string();
        assert!(message.contains("no GPIO chip at all"), "{message}");
    }

    #[test]
    fn a_line_is_found_by_name_on_any_chip() {
        let (chip, line) = choose_named_line("GPIO2", &board()).unwrap();
        assert_eq!((chip.label.as_str(), line.offset), ("pinctrl-rp1", 2));
        assert_eq!(describe(&chip, &line), "line 2 \"GPIO2\" of /dev/gpiochip0 (pinctrl-rp1)");
        for (name, words) in [
            ("SHARED", "ambiguous: line 1 \"SHARED\" of /dev/gpiochip10 (gpio-brcmstb), line 1"),
            ("GPIO99", "no GPIO line \"GPIO99\" on /dev/gpiochip0 (pinctrl-rp1)"),
        ] {
            let message = choose_named_line(name, &board()).unwrap_err().to_string();
            assert!(message.contains(words), "{name}: {message}");
        }
    }

    #[test]
    fn a_consumer_fits_the_kernels_field() {
        assert_eq!(consumer("siren"), "spotter:siren");
        assert_eq!(consumer(&"é".repeat(40)), format!("spotter:{}", "é".repeat(11)));
    }

    #[test]
    fn listing_chips_works_with_and_without_any() {
        for chip in list_chips().unwrap() {
            assert!(chip.error.is_some() || !chip.name.is_empty(), "{chip:?}");
        }
    }
}
