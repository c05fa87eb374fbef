//! `spotter init`

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::outcome::{Failure, Outcome};
use crate::actions::gpio::{ChipInfo, list_chips};
use crate::capture::v4l2::{DeviceInfo, list_devices};
use crate::files::write_atomically;
use crate::model::ModelFiles;

/// Where models are looked for.
const MODEL_FOLDERS: [&str; 3] = ["/usr/share/spotter/models", "/var/lib/spotter/models", "models"];
/// The chips of the pin headers, as `spotter doctor` names them: Raspberry Pi 5, 4, 3 and before, Jetson.
const HEADERS: [&str; 5] = ["pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835", "tegra234-gpio", "tegra-gpio"];
/// Labels that stand for "nothing of these".
const NOTHING: [&str; 4] = ["none", "background", "background_google", "__background__"];
/// A camera's frames need not be larger: what the model sees is 224 pixels wide.
const LARGE_ENOUGH: [u32; 2] = [1280, 720];

/// Write a commented configuration from what this board has: its cameras and their formats, its GPIO chips, the models that are
/// installed. `spotter check` accepts it.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter init --output /etc/spotter/spotter.toml\n\
    Then: spotter check, and spotter look --camera camera --output view.png")]
pub(super) struct Init {
    /// The file to write; otherwise it is printed
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "output")]
    force: bool,
    /// The model to name; otherwise the first that is found in /usr/share/spotter/models, /var/lib/spotter/models or ./models
    #[arg(long, value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
}

impl Init {
    pub(super) fn execute(&self) -> Outcome {
        if let Some(path) = self.output.as_ref().filter(|path| path.exists() && !self.force) {
            return Err(Failure::Usage(format!("{} is there already; --force replaces it", path.display())));
        }
        let found = self.look()?;
        let text = compose(&found);
        let Some(path) = &self.output else {
            use std::io::Write;
            return std::io::stdout().write_all(text.as_bytes()).map_err(Failure::runtime);
        };
        write_atomically(path, text.as_bytes()).map_err(Failure::runtime)?;
        let (cameras, models) = (found.cameras.len(), found.models.len());
        println!("{}: {cameras} cameras and {models} models found; try: spotter check --config {0}", path.display());
        Ok(())
    }

    fn look(&self) -> Result<Found, Failure> {
        let models = match &self.model {
            Some(path) => vec![Model::read(path).map_err(Failure::configuration)?],
            None => MODEL_FOLDERS.iter().flat_map(|folder| models_in(Path::new(folder))).collect(),
        };
        // A board without GPIO, or one whose chips may not be opened, has cameras all the same.
        let chips = list_chips().unwrap_or_default();
        Ok(Found { cameras: list_devices(), chips, models, ribbon: is_on_path("rpicam-vid") })
    }
}

/// What this board has.
#[derive(Default)]
struct Found {
    cameras: Vec<DeviceInfo>,
    chips: Vec<ChipInfo>,
    models: Vec<Model>,
    /// `rpicam-vid` is installed.
    ribbon: bool,
}

/// A model that is installed.
struct Model {
    path: PathBuf,
    labels: Vec<String>,
}

impl Model {
    fn read(path: &Path) -> Result<Self, String> {
        let files = ModelFiles::beside(path).map_err(|error| error.to_string())?;
        let labels = files.labels.map(|labels| labels.iter().map(str::to_owned).collect()).unwrap_or_default();
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        Ok(Self { path, labels })
    }

    /// A class to begin with.
    fn class(&self) -> &str {
        let is_something = |label: &&String| !NOTHING.contains(&label.to_lowercase().as_str());
        self.labels.iter().find(is_something).map_or("0", String::as_str)
    }
}

/// The models of a folder with a manifest and labels that can be read, by name.
fn models_in(folder: &Path) -> Vec<Model> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "onnx") && path.with_extension("toml").exists());
    paths.sort();
    paths.iter().filter_map(|path| Model::read(path).ok()).collect()
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The configuration. Writing to a string does not fail.
fn compose(found: &Found) -> String {
    let mut text =
        "# Spotter's configuration, written by `spotter init` from what this board has. Every key is explained in\n\
        # REFERENCE.md. After a change: spotter check, then systemctl reload spotter\n\n"
            .to_owned();
    model(&mut text, &found.models);
    match found.cameras.as_slice() {
        [] => no_camera(&mut text, found.ribbon),
        [one] => camera(&mut text, "camera", one),
        many => {
            many.iter().enumerate().for_each(|(index, it)| camera(&mut text, &format!("camera{}", index + 1), it));
        }
    }
    rule(&mut text, found.models.first());
    relay(&mut text, &found.chips);
    text += "\n# A broker; add \"broker\" to the rule's actions.\n# [action.broker]\n# type = \"mqtt\"\n\
        # url = \"mqtts://broker.local:8883\"\n# topic = \"spotter\"\n\
        \n# The page, on this board alone: http://127.0.0.1:8080/\n# [page]\n# listen = \"127.0.0.1:8080\"\n";
    text
}

fn model(text: &mut String, models: &[Model]) {
    *text += "[model]\n";
    let Some(first) = models.first() else {
        *text += "# No model was found; this is where the package puts its own.\n\
            path = \"/usr/share/spotter/models/vgg16-gap-caltech101.onnx\"\n\n";
        return;
    };
    let _ = writeln!(text, "path = {}   # {} classes", quoted(&first.path.display().to_string()), first.labels.len());
    for other in &models[1..] {
        let _ = writeln!(text, "# path = {}", quoted(&other.path.display().to_string()));
    }
    text.push('\n');
}

fn camera(text: &mut String, name: &str, found: &DeviceInfo) {
    let _ = writeln!(text, "# {} ({}, at {})", plain(&found.card), plain(&found.driver), plain(&found.bus));
    let _ = writeln!(text, "[[camera]]\nname = {}", quoted(name));
    // By what it is, or by where it is plugged in: numbers change from boot to boot.
    let by_id = found.links.iter().find(|link| link.starts_with("/dev/v4l/by-id"));
    let device = by_id.or(found.links.first()).unwrap_or(&found.path);
    let _ = writeln!(text, "device = {}", quoted(&device.display().to_string()));
    for format in &found.formats {
        let sizes: Vec<_> = format.sizes.iter().map(|[width, height]| format!("{width}x{height}")).collect();
        let _ = writeln!(text, "# it offers {}: {}", plain(&format.fourcc), sizes.join(" "));
    }
    let jpeg = found.formats.iter().find(|format| format.fourcc == "MJPG");
    let fits = |size: &&[u32; 2]| size[0] <= LARGE_ENOUGH[0] && size[1] <= LARGE_ENOUGH[1];
    match jpeg.and_then(|format| format.sizes.iter().filter(fits).max()) {
        Some([width, height]) => {
            let _ = writeln!(text, "format = \"MJPG\"\nsize = [{width}, {height}]");
        }
        None => *text += "# size = [640, 480]\n",
    }
    *text += "# fps = 15\n# rotate = 0                       # 90, 180 or 270\n\n\
        # A part of the picture that is looked at on its own: left, top, width, height, as fractions.\n\
        # [[camera.region]]\n# name = \"gate\"\n# box = [0.30, 0.10, 0.40, 0.70]\n\n";
}

fn no_camera(text: &mut String, ribbon: bool) {
    *text += "# No camera was found: `spotter doctor` lists them once one is plugged in (is the user in the group video?).\n\
        [[camera]]\nname = \"camera\"\n";
    *text += if ribbon {
        "# On the ribbon cable; the service needs the drop-in rpicam.conf (systemd/README.md).\n\
         process = [\"rpicam-vid\", \"-t\", \"0\", \"-n\", \"--codec\", \"mjpeg\", \"--width\", \"1280\", \"--height\", \"720\", \
         \"--framerate\", \"15\", \"-o\", \"-\"]\n\n"
    } else {
        "device = \"/dev/video0\"\n\n"
    };
}

fn rule(text: &mut String, model: Option<&Model>) {
    let class = model.map_or("wild_cat", Model::class);
    let _ = writeln!(
        text,
        "[[rule]]\nname = \"first\"\nclasses = [{}]   # labels, indices or patterns such as \"*cat*\"",
        quoted(class)
    );
    if let Some(labels) = model.map(|model| &model.labels).filter(|labels| !labels.is_empty()) {
        let some: Vec<_> = labels.iter().take(12).map(|label| plain(label)).collect();
        let more = if labels.len() > some.len() { ", …" } else { "" };
        let _ = writeln!(text, "# the model knows {}{more}", some.join(", "));
    }
    *text += "on = 0.60                          # a frame counts from this probability up...\n\
        off = 0.40                         # ...and once the rule is on, down to this one\n\
        hits = 3                           # 3 of the last 5 frames turn it on\nwindow = 5\n\
        hold = \"2s\"                        # it stays on this long after the last frame that supported it\n\
        cooldown = \"30s\"                   # quiet after an event\nactions = [\"journal\"]\n\n\
        # One line an event in the log: journalctl -u spotter\n[action.journal]\ntype = \"log\"\n";
}

/// A relay as a comment: which line has one is not to be guessed, and a wrong one would be driven.
fn relay(text: &mut String, chips: &[ChipInfo]) {
    let usable: Vec<_> = chips.iter().filter(|chip| chip.error.is_none()).collect();
    let header = HEADERS.iter().find_map(|label| usable.iter().find(|chip| chip.label == *label));
    *text += "\n# A relay; add \"relay\" to the rule's actions. A resistor must keep it off while nobody drives the line (README).\n";
    for chip in &usable {
        let held = chip.lines.iter().filter(|line| line.used).count();
        let _ = writeln!(
            text,
            "# found: {} \"{}\", {} lines, {held} in use",
            chip.path.display(),
            plain(&chip.label),
            chip.lines.len()
        );
    }
    let chip = header.or(usable.first()).map_or("pinctrl-rp1", |chip| chip.label.as_str());
    let _ = writeln!(
        text,
        "# [action.relay]\n# type = \"gpio\"\n# chip = {}\n# line = 17                        # or name = \"GPIO17\"\n\
         # mode = \"pulse\"                   # or \"follow\"\n# pulse = \"500ms\"\n# safe = \"low\"",
        plain(&quoted(chip))
    );
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// For a comment: on one line, whatever a device calls itself.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::gpio::LineInfo;
    use crate::capture::v4l2::FormatInfo;
    use crate::config::{self, plan::SourcePlan};

    fn device(links: &[&str], formats: &[(&str, &[[u32; 2]])]) -> DeviceInfo {
        let format = |(fourcc, sizes): &(&str, &[[u32; 2]])| FormatInfo {
            fourcc: fourcc.to_string(),
            sizes: sizes.to_vec(),
            rates: vec![None; sizes.len()],
        };
        DeviceInfo {
            path: "/dev/video2".into(),
            card: "A \"cam\"\n[evil]".into(),
            driver: "uvcvideo".into(),
            bus: "usb-1".into(),
            links: links.iter().map(PathBuf::from).collect(),
            formats: formats.iter().map(format).collect(),
        }
    }

    fn plan(found: &Found) -> config::Plan {
        let text = compose(found);
        config::parse(&text, Path::new("/etc/spotter.toml"), &|_| None).unwrap_or_else(|it| panic!("{it}\n{text}"))
    }

    #[test]
    fn whatever_is_found_makes_a_configuration_that_is_good() {
        let labels = ["none", "wild\\cat\"", "cup"].map(str::to_owned).to_vec();
        let models = || vec![Model { path: "/m/a \"b\".onnx".into(), labels: labels.clone() }];
        let nothing = plan(&Found::default());
        assert!(matches!(&nothing.cameras[0].source, SourcePlan::V4l2 { device, .. } if device == "/dev/video0"));
        let ribbon = plan(&Found { ribbon: true, models: models(), ..Found::default() });
        assert!(matches!(&ribbon.cameras[0].source, SourcePlan::Process { command, .. } if command[0] == "rpicam-vid"));
        assert_eq!(ribbon.model.path, Path::new("/m/a \"b\".onnx"));
        assert!(crate::rules::compile(&ribbon, &labels).is_ok());
        assert_eq!(ribbon.rules[0].classes, ["wild\\cat\""]);

        let by_id = ["/dev/v4l/by-path/p", "/dev/v4l/by-id/i"];
        let jpeg: &[[u32; 2]] = &[[1920, 1080], [640, 480], [1280, 720]];
        let cameras = vec![device(&by_id, &[("YUYV", &[[640, 480]]), ("MJPG", jpeg)]), device(&[], &[("YUYV", jpeg)])];
        let line = LineInfo { offset: 0, name: "L".into(), consumer: String::new(), used: true, direction: "input" };
        let chip = |label: &str| ChipInfo {
            path: "/dev/gpiochip0".into(),
            name: "gpiochip0".into(),
            label: label.into(),
            lines: vec![line.clone()],
            error: None,
        };
        let found =
            Found { cameras, chips: vec![chip("other\nx"), chip("pinctrl-bcm2711")], models: models(), ribbon: false };
        let both = plan(&found);
        let sources: Vec<_> =
            both.cameras.iter().map(|camera| (&*camera.name, camera.source.clone(), camera.size)).collect();
        assert!(
            matches!(&sources[0], ("camera1", SourcePlan::V4l2 { device, .. }, Some([1280, 720])) if device == by_id[1])
        );
        assert!(matches!(&sources[1], ("camera2", SourcePlan::V4l2 { device, .. }, None) if device == "/dev/video2"));

        // What is commented out is good too, but for the indentation of the comment.
        let text = compose(&found);
        assert!(text.contains("# chip = \"pinctrl-bcm2711\"") && text.contains("1 in use"), "{text}");
        let active: String = ["relay", "broker"].iter().fold(text, |text, name| {
            let (before, section) = text.split_once(&format!("# [action.{name}]")).unwrap();
            let end = section.find("\n\n").unwrap();
            let lines = section[..end].lines().map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n");
            format!("{before}[action.{name}]{lines}{}", &section[end..])
        });
        let active = config::parse(&active, Path::new("/etc/spotter.toml"), &|_| None)
            .unwrap_or_else(|it| panic!("{it}\n{active}"));
        assert_eq!(active.actions.len(), 3);
    }
}
