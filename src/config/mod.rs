//! From a TOML file to a [`Plan`] that is valid by type, or to a list of every problem in it.
//!
//! The document is parsed with the place of every value, then each section is read by a function of its own
//! (`camera`, `rule`, `action`) through `reader`, which notes each problem with its line and goes on. [`KEYS`] is
//! the one table of keys: a key that is not in it is unknown, and the reference in the README is made from it.

mod action;
mod arming;
mod camera;
mod classes;
pub mod defaults;
mod keys;
mod motion;
mod page;
pub mod plan;
mod problem;
mod reactions;
mod reader;
mod rule;
pub mod schedule;
mod secrets;
pub(crate) mod similar;
mod station;
#[cfg(test)]
mod tests;
mod values;

use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_spanned::Spanned;
use toml::de::{DeArray, DeTable};

pub(crate) use classes::GROUP_MARK;
pub use keys::{Absent, KEYS, Key, Section, reference};
pub use plan::Plan;
use plan::{ActionPlan, CachePlan, CameraPlan, GroupPlan, MethodPlan, ModelPlan, RulePlan, SourcePlan};
pub use problem::{Problem, Problems};
use reader::{Document, Lines, Table};
pub use values::duration;

/// The largest file that is read, in bytes.
pub const LARGEST_FILE: u64 = 1 << 20;
const MOST_CAMERAS: usize = 64;
const MOST_RULES: usize = 256;
const MOST_ACTIONS: usize = 256;
const MOST_GROUPS: usize = 256;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; name another with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{} is larger than {LARGEST_FILE} bytes, and so no configuration; name another with --config", .0.display())]
    TooLarge(PathBuf),
    /// What is in it is wrong.
    #[error(transparent)]
    Problems(#[from] Problems),
}

/// Reads the file at `path`, with `${VARIABLES}` from the process's environment.
///
/// # Errors
/// The file cannot be read, or every problem in it.
pub fn load(path: &Path) -> Result<Plan, ConfigError> {
    let text = read(path)?;
    Ok(parse(&text, path, &|variable| std::env::var(variable).ok())?)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(ConfigError::TooLarge(path.to_path_buf()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let mut problems = Problems::new(path);
        problems.push(line, "", "a byte that is not UTF-8; save the file as UTF-8");
        problems.into()
    })
}

/// Reads `text`, the content of `file`: relative paths in it are relative to that file's folder. `variables` gives the value of
/// a `${VARIABLE}`.
///
/// # Errors
/// Every problem in it, with its line; at a syntax error the syntax errors alone.
pub fn parse(text: &str, file: &Path, variables: &dyn Fn(&str) -> Option<String>) -> Result<Plan, Problems> {
    let root = parse_document(text, file)?;
    let used = RefCell::new(Vec::new());
    let recorded = |name: &str| {
        let value = variables(name)?;
        used.borrow_mut().push((name.to_owned(), value.clone()));
        Some(value)
    };
    let document = Document::new(text, file, &recorded);
    let plan = read_plan(&Table::root(&document, &root));
    let mut problems = document.into_problems();
    hide_values(&mut problems, &used.borrow());
    if problems.list.is_empty() { Ok(plan) } else { Err(problems) }
}

/// A value from the environment may be a secret, and a problem is logged: it shows the variable's name instead.
fn hide_values(problems: &mut Problems, used: &[(String, String)]) {
    for (name, value) in used.iter().filter(|(_, value)| !value.is_empty()) {
        for problem in &mut problems.list {
            for shown in [value.clone(), value.escape_debug().to_string()] {
                problem.message = problem.message.replace(&shown, &format!("${{{name}}}"));
            }
        }
    }
}

/// The document's tree; syntax errors once a line, since the parser finds more behind one that are no errors of their own.
fn parse_document<'a>(text: &'a str, file: &Path) -> Result<Spanned<DeTable<'a>>, Problems> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::of(text);
    let mut problems = Problems::new(file);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let (line, start) = lines.line(at);
        if problems.list.last().is_some_and(|last| last.line == line) {
            continue;
        }
        let column = String::from_utf8_lossy(&text.as_bytes()[start..at]).chars().count() + 1;
        problems.push(line, "", format!("column {column}: {}; mend the TOML here", error.message().trim_end()));
    }
    if problems.list.is_empty() { Ok(root) } else { Err(problems) }
}

fn read_plan(root: &Table<'_>) -> Plan {
    let cameras = read_cameras(root);
    let actions = root.table("action", Section::Actions);
    let groups = root.table("group", Section::Groups);
    let device = root.table("device", Section::Device);
    let known = rule::Known {
        views: camera::view_names(&cameras),
        // Also those with problems of their own: a rule that names one is not wrong for that.
        actions: actions.as_ref().map(Table::keys).unwrap_or_default(),
        groups: groups.as_ref().map(Table::keys).unwrap_or_default(),
        brokers: actions.as_ref().is_some_and(arming::has_broker),
        zone: schedule::zone(device.as_ref()),
    };
    let plans = actions.as_ref().map(read_actions).unwrap_or_default();
    let inputs = station::read_inputs(root);
    let stations = station::read_all(root, &known, &inputs, &plans);
    let lines = device.as_ref().map(|it| station::read_device_lines(it, &plans)).unwrap_or_default();
    Plan {
        device: read_device(device.as_ref()),
        timezone: known.zone.clone(),
        model: read_model(root),
        rules: read_rules(root, &known),
        groups: groups.as_ref().map(read_groups).unwrap_or_default(),
        actions: plans,
        stations,
        inputs,
        lines,
        thermal: device.as_ref().and_then(motion::thermal),
        page: root.table("page", Section::Page).map(|page| page::read(&page)),
        cameras,
    }
}

fn read_device(device: Option<&Table<'_>>) -> String {
    let name = device.and_then(|device| device.name("name"));
    name.unwrap_or_else(host_name)
}

/// The host's name, with what a name may not hold replaced.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String =
        name.chars().map(|c| if values::name(c.encode_utf8(&mut [0; 4])).is_ok() { c } else { '-' }).collect();
    if name.is_empty() { "spotter".into() } else { name }
}

fn read_model(root: &Table<'_>) -> ModelPlan {
    if !root.has("model") {
        root.problem("model", "is missing; add `[model]` with `path = \"….onnx\"`");
    }
    let Some(model) = root.table("model", Section::Model) else {
        return ModelPlan {
            path: PathBuf::new(),
            kernel: None,
            threads: None,
            compact: false,
            layers: Vec::new(),
            cache: CachePlan::Default,
        };
    };
    model.require("path");
    ModelPlan {
        path: model.path("path").unwrap_or_default(),
        kernel: model.text("kernel"),
        threads: model.integer("threads", 1..=1024).and_then(|threads| usize::try_from(threads).ok()),
        compact: model.choice("memory", &[("fast", false), ("compact", true)]).unwrap_or_default(),
        layers: read_layers(&model),
        cache: match model.text("cache").as_deref() {
            None => CachePlan::Default,
            Some("none") => CachePlan::None,
            Some(_) => CachePlan::Folder(model.path("cache").unwrap_or_default()),
        },
    }
}

fn read_layers(model: &Table<'_>) -> Vec<(String, MethodPlan)> {
    let mut layers = Vec::new();
    for (index, text) in model.strings("layers").unwrap_or_default() {
        let method = text.rsplit_once('=').and_then(|(layer, method)| Some((layer.to_owned(), method_plan(method)?)));
        match method.filter(|(layer, _)| !layer.is_empty()) {
            Some(layer) => layers.push(layer),
            None => {
                let remedy = "write LAYER=METHOD; methods are auto, direct and winograd";
                model.problem_in("layers", index, format!("{text:?} is no choice for a layer; {remedy}"));
            }
        }
    }
    layers
}

fn method_plan(name: &str) -> Option<MethodPlan> {
    match name {
        "auto" => Some(MethodPlan::Auto),
        "direct" => Some(MethodPlan::Direct),
        "winograd" => Some(MethodPlan::Winograd),
        _ => None,
    }
}

fn read_cameras(root: &Table<'_>) -> Vec<CameraPlan> {
    let tables = root.tables("camera", Section::Camera, MOST_CAMERAS);
    if tables.is_empty() && (!root.has("camera") || root.is_empty_list("camera")) {
        root.problem("camera", "there is no camera; add `[[camera]]` with `name` and `device`");
    }
    let mut cameras: Vec<CameraPlan> = Vec::new();
    for table in tables {
        let names: Vec<Arc<str>> = cameras.iter().map(|camera| camera.name.clone()).collect();
        let camera = camera::read(&table, &names);
        if let Some(other) = cameras.iter().find(|other| same_device(&other.source, &camera.source)) {
            table.problem(
                "device",
                format!("is the device of camera {:?} too, and only one can open it; use regions", other.name),
            );
        }
        cameras.push(camera);
    }
    cameras
}

fn same_device(a: &SourcePlan, b: &SourcePlan) -> bool {
    match (a, b) {
        (SourcePlan::V4l2 { device: a, .. }, SourcePlan::V4l2 { device: b, .. }) => a == b && !a.is_empty(),
        _ => false,
    }
}

fn read_rules(root: &Table<'_>, known: &rule::Known) -> Vec<RulePlan> {
    let mut rules: Vec<RulePlan> = Vec::new();
    for table in root.tables("rule", Section::Rule, MOST_RULES) {
        let names: Vec<Arc<str>> = rules.iter().map(|rule| rule.name.clone()).collect();
        rules.push(rule::read(&table, &names, known));
    }
    rules
}

fn read_groups(table: &Table<'_>) -> Vec<GroupPlan> {
    let names = table.keys();
    if names.len() > MOST_GROUPS {
        table.problem_here(format!("there are {} groups; at most {MOST_GROUPS} are allowed", names.len()));
    }
    names.iter().take(MOST_GROUPS).filter_map(|name| classes::read_group(table, name)).collect()
}

fn read_actions(table: &Table<'_>) -> Vec<ActionPlan> {
    let names = table.keys();
    if names.len() > MOST_ACTIONS {
        table.problem_here(format!("there are {} actions; at most {MOST_ACTIONS} are allowed", names.len()));
    }
    let mut actions: Vec<ActionPlan> = Vec::new();
    for name in names.iter().take(MOST_ACTIONS) {
        let Some(action) = action::read(table, name) else { continue };
        if let Some(problem) = action::taken(&action, &actions) {
            table.problem(name, problem);
        }
        actions.push(action);
    }
    actions
}

/// Gives problems that were found after parsing, such as classes that a model does not have, their lines: pairs of a key
/// (`rule[0].classes[1]`) and a message. A key that is not there gets the line of the nearest table around it.
///
/// # Errors
/// The file cannot be read any more.
pub fn locate(path: &Path, found: impl IntoIterator<Item = (String, String)>) -> Result<Problems, ConfigError> {
    let text = read(path)?;
    let root = parse_document(&text, path)?;
    let lines = Lines::of(&text);
    let mut problems = Problems::new(path);
    for (key, message) in found {
        problems.push(lines.line(offset_of(root.get_ref(), &key)).0, key, message);
    }
    problems.list.sort_by_key(|problem| problem.line);
    Ok(problems)
}

/// Where the value of `key` begins, or the last part of it that is there.
fn offset_of(root: &DeTable<'_>, key: &str) -> usize {
    let mut at = 0;
    let mut table = Some(root);
    let mut list: Option<&DeArray<'_>> = None;
    for part in key.split(['.', '[']) {
        let value = match part.strip_suffix(']') {
            Some(index) => index.parse::<usize>().ok().and_then(|index| list?.get(index)),
            None => table.and_then(|table| table.get(part)),
        };
        let Some(value) = value else { break };
        at = value.span().start;
        (table, list) = (value.get_ref().as_table(), value.get_ref().as_array());
    }
    at
}
