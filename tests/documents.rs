//! What the documents say exists: every configuration in them is a good one, every command and option, make target, metric and link is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use spotter::config;
use spotter::model::{Labels, Manifest};
use spotter::rules;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// README, CONTRIBUTING and the like, and everything in docs/.
fn documents() -> Vec<(PathBuf, String)> {
    let files = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all =
        files(ROOT.into()).chain(files(Path::new(ROOT).join("docs"))).chain(files(Path::new(ROOT).join("models")));
    let mut paths: Vec<_> = all.filter(|path| path.extension().is_some_and(|it| it == "md")).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of a language (`sh`, `toml`), each with the number of its first line.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<(usize, Vec<&'a str>)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, usize, Vec<&str>)> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(word), None) => open = Some((word.trim().to_owned(), number + 2, Vec::new())),
            (Some(_), Some(_)) => {
                blocks.extend(open.take().filter(|(word, ..)| word == language).map(|it| (it.1, it.2)))
            }
            (None, Some((.., lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    blocks
}

/// `code` in running text, outside fenced blocks.
fn spans(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.lines()).flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// Commands of `sh` blocks and of code spans: each from its program on, comments cut off.
fn commands(text: &str) -> Vec<String> {
    let lines = blocks(text, "sh").into_iter().flat_map(|(_, lines)| lines);
    let lines = lines.map(|line| line.split(" #").next().unwrap_or_default());
    let all = lines.chain(spans(text)).flat_map(|line| line.split("&&").flat_map(|part| part.split([';', '|'])));
    let bare = |part: &str| {
        let words = part.split_whitespace().skip_while(|word| *word == "sudo" || is_assignment(word));
        words.collect::<Vec<_>>().join(" ")
    };
    all.map(bare).filter(|command| !command.is_empty()).collect()
}

/// `NAME=value` before a command.
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

#[test]
fn every_configuration_in_the_documents_is_good() {
    let credentials = tempfile::tempdir().unwrap();
    ["page", "mqtt"]
        .iter()
        .for_each(|name| std::fs::write(credentials.path().join(name), "0123456789abcdef\n").unwrap());
    let labels = Labels::load(&Path::new(ROOT).join("models/caltech101-labels.txt")).unwrap();
    let labels: Vec<&str> = labels.iter().collect();
    let mut checked = 0;
    for (path, text) in documents() {
        for (line, block) in blocks(&text, "toml") {
            let place = format!("{}:{line}", path.display());
            // A figure that the reader puts in.
            let block = block.join("\n").replace("sha256 = \"…\"", &format!("sha256 = \"{}\"", "0".repeat(64)));
            if block.contains("[input]") && block.contains("preprocess") {
                Manifest::parse(Path::new("doc.toml"), &block).unwrap_or_else(|problems| panic!("{place}: {problems}"));
            } else {
                // The one file of the documents that must be there.
                let token = credentials.path().join("page");
                let block = block.replace("/etc/spotter/page-token", &token.display().to_string());
                let whole = completed(&block).unwrap_or_else(|error| panic!("{place}: {error}"));
                let variables = |name: &str| match name {
                    "CREDENTIALS_DIRECTORY" => Some(credentials.path().display().to_string()),
                    _ => Some("value".to_owned()),
                };
                let plan = config::parse(&whole, Path::new("/etc/spotter/spotter.toml"), &variables)
                    .unwrap_or_else(|problems| panic!("{place}: {problems}\n{whole}"));
                if block.contains("vgg16-gap-caltech101") {
                    rules::compile(&plan, &labels).unwrap_or_else(|problems| panic!("{place}: {problems:?}"));
                }
            }
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked}");
}

/// A part of a configuration, with what it leaves to the reader: a model, the cameras and actions that it names.
fn completed(block: &str) -> Result<String, toml::de::Error> {
    let given: toml::Table = block.parse()?;
    let mut whole = block.to_owned();
    if !given.contains_key("model") {
        whole += "\n[model]\npath = \"model.onnx\"\n";
    }
    let list = |name: &str| given.get(name).and_then(|it| it.as_array()).cloned().unwrap_or_default();
    let (rules, stations) = (list("rule"), list("station"));
    let named = |keys: &[&str]| -> BTreeSet<String> {
        let values = rules.iter().chain(&stations).flat_map(|table| keys.iter().filter_map(|key| table.get(key)));
        let texts = values.flat_map(|value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]));
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    if !given.contains_key("camera") {
        let mut cameras: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for view in named(&["cameras", "camera"]) {
            let (camera, region) = view.split_once('/').unwrap_or((&view, ""));
            cameras.entry(camera.into()).or_default().extend((!region.is_empty()).then(|| region.to_owned()));
        }
        if cameras.is_empty() {
            cameras.insert("camera".into(), BTreeSet::new());
        }
        for (camera, regions) in cameras {
            whole += &format!("\n[[camera]]\nname = {camera:?}\ndevice = \"/dev/video0\"\n");
            for region in regions {
                whole += &format!("[[camera.region]]\nname = {region:?}\nbox = [0.0, 0.0, 0.5, 0.5]\n");
            }
        }
    }
    let actions = given.get("action").and_then(|it| it.as_table()).cloned().unwrap_or_default();
    for action in named(&["actions", "escalate", "pass", "fail", "fault"]) {
        if !actions.contains_key(&action) {
            whole += &format!("\n[action.{action}]\ntype = \"log\"\n");
        }
    }
    Ok(whole)
}

#[test]
fn every_command_of_ours_in_the_documents_exists_with_its_options() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = 0;
    for (path, text) in documents() {
        for command in commands(&text) {
            let mut words = command.split_whitespace();
            let program = words.next().unwrap_or_default();
            if program.rsplit('/').next() != Some("spotter") {
                continue;
            }
            // A name in running text (`spotter 0.1`), a path, a placeholder.
            let Some(name) = words.next().filter(|it| it.chars().all(|c| c.is_ascii_lowercase())) else { continue };
            let help = helps.entry(name.to_owned()).or_insert_with(|| {
                let output = Command::new(env!("CARGO_BIN_EXE_spotter")).args([name, "--help"]).output().unwrap();
                assert!(output.status.success(), "{}: there is no `spotter {name}`: {command}", path.display());
                String::from_utf8(output.stdout).unwrap()
            });
            for option in words.filter(|word| word.starts_with("--")) {
                let option = option.split('=').next().unwrap_or(option);
                let known = help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == option);
                assert!(known, "{}: `spotter {name}` has no {option}: {command}", path.display());
            }
            checked += 1;
        }
    }
    assert!(checked >= 10, "{checked}");
}

#[test]
fn every_make_target_in_the_documents_exists() {
    let makefile = std::fs::read_to_string(Path::new(ROOT).join("Makefile")).unwrap();
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|line| line.split_once(':')).map(|(target, _)| target).collect();
    for (path, text) in documents() {
        for command in commands(&text) {
            let Some(rest) = command.strip_prefix("make ") else { continue };
            for target in rest.split_whitespace().filter(|word| !is_assignment(word)) {
                assert!(targets.contains(target), "{}: no target {target:?}: {command}", path.display());
            }
        }
    }
}

#[test]
fn every_metric_in_the_documents_exists() {
    let source = std::fs::read_to_string(Path::new(ROOT).join("src/web/metrics.rs")).unwrap();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (path, text) in documents() {
        let names = text.split(|c: char| !is_name(c)).filter(|word| word.starts_with("spotter_"));
        for name in names.filter(|name| !name.contains(|c: char| c.is_ascii_uppercase())) {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(source.contains(&format!("\"{base}\"")), "{}: no metric {name}", path.display());
        }
    }
}

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    for (path, text) in documents() {
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !anchor.is_empty() {
                let headings = anchors(&std::fs::read_to_string(&target).unwrap());
                assert!(headings.contains(anchor), "{}: {link}: no such heading in {headings:?}", path.display());
            }
        }
    }
}

/// As GitHub makes them of headings: small letters, no punctuation, hyphens for spaces.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    let headings = prose.iter().flat_map(|part| part.lines()).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}
