//! The configuration in force, for people: what was written and what was not, without secrets.

use std::fmt::Debug;

use serde_json::{Value, json};

use crate::config::Plan;
use crate::config::plan::{ActionKind, CameraPlan, GpioPlan, MqttPlan, RulePlan, SourcePlan};

/// Sections in the file's order: a heading, and rows of key and value.
pub(super) fn describe(plan: &Plan) -> Value {
    let mut sections = vec![section("device", vec![row("name", &plan.device)])];
    let model = &plan.model;
    sections.push(section(
        "model",
        vec![
            row("path", model.path.display()),
            row("kernel", model.kernel.as_deref().unwrap_or("the best for this CPU")),
            row("threads", model.threads.map_or("all cores".into(), |threads| threads.to_string())),
        ],
    ));
    sections.extend(plan.cameras.iter().map(camera));
    sections.extend(plan.rules.iter().map(rule));
    for action in &plan.actions {
        let rows = match &action.kind {
            ActionKind::Gpio(gpio) => gpio_rows(gpio),
            ActionKind::Mqtt(mqtt) => mqtt_rows(mqtt),
            // Its arguments may be secrets, and a part of a command line says little.
            ActionKind::Hook(hook) => vec![row("program", hook.command.first().map_or("", String::as_str))],
            // Plain data; a secret among it hides itself.
            other => vec![row("kind", words(other))],
        };
        sections.push(section(&format!("action {}", action.name), rows));
    }
    if let Some(page) = &plan.page {
        let token = if page.token.is_some() { "set, hidden" } else { "none" };
        let rows = vec![
            row("listen", page.listen),
            row("token", token),
            row("private", page.private),
            row("photos", page.photos.as_ref().map_or("none taken".into(), |folder| folder.display().to_string())),
        ];
        sections.push(section("page", rows));
    }
    Value::Array(sections)
}

fn section(heading: &str, rows: Vec<Value>) -> Value {
    json!({ "heading": heading, "rows": rows })
}

fn row(key: &str, value: impl ToString) -> Value {
    json!([key, value.to_string()])
}

fn words(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn camera(plan: &CameraPlan) -> Value {
    let source = match &plan.source {
        SourcePlan::V4l2 { device, .. } => row("device", device),
        SourcePlan::Process { command, .. } => {
            row("process", command.iter().map(|word| without_password(word)).collect::<Vec<_>>().join(" "))
        }
        SourcePlan::Files { path, .. } => row("files", path.display()),
    };
    let mut rows = vec![source];
    rows.extend(plan.size.map(|[width, height]| row("size", format!("{width} × {height}"))));
    rows.extend(plan.fps.map(|fps| row("fps", fps)));
    rows.push(row("fit", words(&plan.fit).to_lowercase()));
    rows.push(row("timeout", words(&plan.timeout)));
    rows.push(row("stale", words(&plan.stale)));
    rows.extend(plan.regions.iter().map(|region| row(&format!("region {}", region.name), words(&region.area))));
    section(&format!("camera {}", plan.name), rows)
}

fn rule(plan: &RulePlan) -> Value {
    let cameras = if plan.cameras.is_empty() { "all".to_owned() } else { plan.cameras.join(", ") };
    let rows = vec![
        row("cameras", cameras),
        row("classes", plan.classes.join(", ")),
        row("on / off", format!("{} / {}", plan.on, plan.off)),
        row("hits of window", format!("{} of {}", plan.hits, plan.window)),
        row("hold", words(&plan.hold)),
        row("cooldown", words(&plan.cooldown)),
        row("actions", plan.actions.join(", ")),
    ];
    section(&format!("rule {}", plan.name), rows)
}

fn gpio_rows(plan: &GpioPlan) -> Vec<Value> {
    vec![
        row("backend", words(&plan.backend).to_lowercase()),
        row("chip", plan.chip.as_deref().unwrap_or("any")),
        row("line", words(&plan.line)),
        row("mode", words(&plan.mode)),
        row("active low", plan.active_low),
        row("safe", words(&plan.safe).to_lowercase()),
    ]
}

fn mqtt_rows(plan: &MqttPlan) -> Vec<Value> {
    vec![
        row("broker", format!("{}://{}:{}", if plan.tls { "mqtts" } else { "mqtt" }, plan.host, plan.port)),
        row("user", plan.credentials.as_ref().map_or("none", |(user, _)| user)),
        row("password", if plan.credentials.is_some() { "set, hidden" } else { "none" }),
        row("topic", &plan.topic),
        row("discovery", plan.discovery.as_deref().unwrap_or("off")),
        row("outbox", plan.outbox),
    ]
}

/// `rtsp://user:password@camera/…` without what stands between `://` and `@`.
fn without_password(word: &str) -> String {
    let hidden = word.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let at = rest[..end].rfind('@')?;
        Some(format!("{scheme}://…{}", &rest[at..]))
    });
    hidden.unwrap_or_else(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn no_secret_is_described() {
        let text = r#"
            [model]
            path = "m"
            [[camera]]
            name = "gate"
            process = ["ffmpeg", "-i", "rtsp://admin:s3cret@camera/stream?x=a@b"]
            [action.broker]
            type = "mqtt"
            url = "mqtts://joe:s3cret@broker"
            [page]
            token = "s3cret-s3cret-s3cret"
        "#;
        let plan = crate::config::parse(text, Path::new("f.toml"), &|_| None).unwrap();
        let described = describe(&plan).to_string();
        assert!(!described.contains("s3cret"), "{described}");
        for shown in ["rtsp://…@camera/stream?x=a@b", "mqtts://broker:8883", "joe", "set, hidden", "camera gate"] {
            assert!(described.contains(shown), "{shown}: {described}");
        }
    }
}
