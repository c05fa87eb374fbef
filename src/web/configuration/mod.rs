//! The configuration in force, for people: what was written and what was not, without secrets.

mod words;

use serde_json::{Value, json};

use crate::config::Plan;
use crate::config::plan::{
    ActionKind, ActionPlan, ArmedBy, CameraPlan, GpioPlan, InputPlan, MotionPlan, MqttPlan, MqttVersion, PagePlan,
    RulePlan, SourcePlan, StationPlan,
};
use words::{list, share, time, yes};

/// What stands for a secret that is there.
const HIDDEN: &str = "set, hidden";

/// Sections in the file's order: a heading, and rows of key and value.
pub(super) fn describe(plan: &Plan) -> Value {
    let mut sections = vec![device(plan), model(plan)];
    sections.extend(plan.cameras.iter().map(camera));
    for group in &plan.groups {
        sections.push(section(&format!("group {}", group.name), vec![row("classes", list(&group.classes, "none"))]));
    }
    sections.extend(plan.rules.iter().map(rule));
    sections.extend(plan.stations.iter().map(station));
    sections.extend(plan.inputs.iter().map(input));
    sections.extend(plan.actions.iter().map(action));
    sections.extend(plan.page.as_ref().map(page));
    Value::Array(sections)
}

fn section(heading: &str, rows: Vec<Value>) -> Value {
    json!({ "heading": heading, "rows": rows })
}

fn row(key: &str, value: impl ToString) -> Value {
    json!([key, value.to_string()])
}

/// Rows of what may be missing, and is then not shown.
fn optional<T>(key: &str, value: Option<T>, shown: impl FnOnce(T) -> String) -> Option<Value> {
    value.map(|value| row(key, shown(value)))
}

fn device(plan: &Plan) -> Value {
    let zone = plan.timezone.iana_name().unwrap_or("the system's").to_owned();
    let mut rows = vec![row("name", &plan.device), row("timezone", zone)];
    for (key, line) in
        [("ready", &plan.lines.ready), ("fault", &plan.lines.fault), ("heartbeat", &plan.lines.heartbeat)]
    {
        rows.extend(optional(key, line.as_ref(), |line| place(line.chip.as_deref(), &words::line(&line.line))));
    }
    rows.extend(optional("thermal limit", plan.thermal.as_ref(), |thermal| format!("{} °C", thermal.limit)));
    section("device", rows)
}

fn place(chip: Option<&str>, line: &str) -> String {
    format!("line {line} of {}", chip.unwrap_or("any chip"))
}

fn model(plan: &Plan) -> Value {
    let model = &plan.model;
    let rows = vec![
        row("path", model.path.display()),
        row("kernel", model.kernel.as_deref().unwrap_or("the best for this CPU")),
        row("threads", model.threads.map_or("all cores".into(), |threads| threads.to_string())),
    ];
    section("model", rows)
}

fn camera(plan: &CameraPlan) -> Value {
    let mut rows = match &plan.source {
        SourcePlan::V4l2 { device, format } => {
            vec![row("device", device), row("format", format.map_or("the best offered", words::format))]
        }
        SourcePlan::Process { command, format } => {
            vec![row("process", words::command(command)), row("format", words::format(*format))]
        }
        SourcePlan::Files { path, repeat, live } => {
            vec![row("files", path.display()), row("repeat", yes(*repeat)), row("live", yes(*live))]
        }
    };
    rows.extend(optional("size", plan.size, |[width, height]| format!("{width} × {height}")));
    rows.extend(optional("fps", plan.fps, |fps| fps.to_string()));
    rows.push(row("rotate", words::rotation(plan.orientation.rotate)));
    rows.extend(optional("flip", plan.orientation.flip, |flip| words::flip(flip).into()));
    rows.push(row("fit", format!("{:?}", plan.fit).to_lowercase()));
    rows.push(row("timeout", time(plan.timeout)));
    rows.push(row("stale", time(plan.stale)));
    rows.extend(optional("motion", plan.motion.as_ref(), motion));
    rows.extend(plan.controls.iter().map(|(name, value)| row(name, value)));
    rows.extend(plan.regions.iter().map(|region| row(&format!("region {}", region.name), words::area(&region.area))));
    section(&format!("camera {}", plan.name), rows)
}

fn motion(plan: &MotionPlan) -> String {
    let rate = |name: &str, fps: Option<f64>| fps.map_or(String::new(), |fps| format!(", {name} {fps} a second"));
    format!(
        "threshold {}, area {}, at least every {}, linger {}{}{}, {} masks",
        plan.threshold,
        plan.area,
        time(plan.floor),
        time(plan.linger),
        rate("idle", plan.idle_fps),
        rate("active", plan.active_fps),
        plan.masks.len(),
    )
}

fn rule(plan: &RulePlan) -> Value {
    let mut rows = vec![row("cameras", list(&plan.cameras, "all")), row("classes", list(&plan.classes, "none"))];
    if !plan.not_classes.is_empty() {
        rows.push(row("not classes", list(&plan.not_classes, "")));
    }
    rows.push(row("on / off", format!("{} / {}", share(plan.on), share(plan.off))));
    rows.push(row("hits of window", format!("{} of {}", plan.hits, plan.window)));
    rows.push(row("hold", time(plan.hold)));
    rows.push(row("cooldown", time(plan.cooldown)));
    rows.extend(optional("schedule", plan.schedule.as_ref(), |schedule| {
        schedule.spans.iter().map(words::span).collect::<Vec<_>>().join(", ")
    }));
    rows.extend(optional("armed by", plan.armed_by.as_ref(), |by| match by {
        ArmedBy::Mqtt => "mqtt".into(),
        ArmedBy::Gpio(input) => place(input.chip.as_deref(), &words::line(&input.line)),
    }));
    rows.push(row("actions", list(&plan.actions, "none")));
    rows.extend(optional("escalate", plan.escalation.as_ref(), |escalation| {
        format!("{} after {}", list(&escalation.actions, "none"), time(escalation.after))
    }));
    section(&format!("rule {}", plan.name), rows)
}

fn station(plan: &StationPlan) -> Value {
    let rows = vec![
        row("camera", &plan.view),
        row("trigger", plan.trigger.as_deref().unwrap_or("messages")),
        row("classes", list(&plan.classes, "none")),
        row("on", share(plan.on)),
        row("delay", time(plan.delay)),
        row("timeout", time(plan.timeout)),
        row("queue", plan.queue),
        row("pass", list(&plan.pass, "none")),
        row("fail", list(&plan.fail, "none")),
        row("fault", list(&plan.fault, "none")),
    ];
    section(&format!("station {}", plan.name), rows)
}

fn input(plan: &InputPlan) -> Value {
    let rows = vec![
        row("backend", words::backend(plan.backend)),
        row("line", place(plan.chip.as_deref(), &words::line(&plan.line))),
        row("active low", yes(plan.active_low)),
        row("bias", words::bias(plan.bias)),
        row("debounce", time(plan.debounce)),
    ];
    section(&format!("input {}", plan.name), rows)
}

fn action(plan: &ActionPlan) -> Value {
    let rows = match &plan.kind {
        ActionKind::Gpio(gpio) => gpio_rows(gpio),
        ActionKind::Mqtt(mqtt) => mqtt_rows(mqtt),
        ActionKind::Log(log) => {
            vec![row("path", log.path.as_ref().map_or("the journal".into(), |path| path.display().to_string()))]
        }
        // Its arguments may be secrets, and a part of a command line says little.
        ActionKind::Hook(hook) => vec![
            row("program", hook.command.first().map_or("", String::as_str)),
            row("timeout", time(hook.timeout)),
            row("parallel", hook.parallel),
            row("queue", hook.queue),
        ],
        ActionKind::Webhook(webhook) => vec![
            row("server", words::word_without_secret(webhook.url.reveal())),
            row("token", secret(webhook.token.is_some())),
            row("timeout", time(webhook.timeout)),
            row("retries", webhook.retries),
            row("queue", webhook.queue),
        ],
        ActionKind::Snapshot(snapshot) => vec![
            row("folder", snapshot.folder.display()),
            row("count", snapshot.count),
            row("megabytes", snapshot.bytes as f64 / 1e6),
            row("quality", snapshot.quality),
        ],
    };
    section(&format!("action {}", plan.name), rows)
}

fn secret(is_set: bool) -> &'static str {
    if is_set { HIDDEN } else { "none" }
}

fn gpio_rows(plan: &GpioPlan) -> Vec<Value> {
    vec![
        row("backend", words::backend(plan.backend)),
        row("line", place(plan.chip.as_deref(), &words::line(&plan.line))),
        row("mode", words::mode(&plan.mode)),
        row("active low", yes(plan.active_low)),
        row("safe", words::level(plan.safe)),
    ]
}

fn mqtt_rows(plan: &MqttPlan) -> Vec<Value> {
    let version = match plan.version {
        MqttVersion::V311 => "3.1.1",
        MqttVersion::V5 => "5",
    };
    vec![
        row("broker", format!("{}://{}:{}", if plan.tls { "mqtts" } else { "mqtt" }, plan.host, plan.port)),
        row("version", version),
        row("user", plan.credentials.as_ref().map_or("none", |(user, _)| user)),
        row("password", secret(plan.credentials.is_some())),
        row("topic", &plan.topic),
        row("discovery", plan.discovery.as_deref().unwrap_or("off")),
        row("outbox", plan.outbox),
    ]
}

fn page(plan: &PagePlan) -> Value {
    let rows = vec![
        row("listen", plan.listen),
        row("token", secret(plan.token.is_some())),
        row("private", yes(plan.private)),
        row("hosts", list(&plan.hosts, "this one's")),
        row("photos", plan.photos.as_ref().map_or("none taken".into(), |folder| folder.display().to_string())),
    ];
    section("page", rows)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn described(text: &str) -> String {
        describe(&crate::config::parse(text, Path::new("/f.toml"), &|_| None).unwrap()).to_string()
    }

    #[test]
    fn no_secret_is_described() {
        let described = described(
            r#"
            [model]
            path = "m"
            [[camera]]
            name = "gate"
            process = ["ffmpeg", "-headers", "Authorization: s3cret", "-i", "rtsp://admin:s3cret@camera/s3cret"]
            [action.broker]
            type = "mqtt"
            url = "mqtts://joe:s3cret@broker"
            [action.server]
            type = "webhook"
            url = "https://home.local:8123/api/webhook/s3cret"
            token = "s3cret"
            [action.program]
            type = "hook"
            command = ["/bin/true", "s3cret"]
            [page]
            token = "s3cret-s3cret-s3cret"
        "#,
        );
        assert!(!described.contains("s3cret"), "{described}");
        for shown in
            ["rtsp://…@camera/…", "mqtts://broker:8883", "joe", HIDDEN, "camera gate", "https://home.local:8123/…"]
        {
            assert!(described.contains(shown), "{shown}: {described}");
        }
    }

    #[test]
    fn what_was_written_and_the_defaults_are_described() {
        let described = described(
            r#"
            [device]
            timezone = "Europe/Berlin"
            [model]
            path = "m"
            [group.pets]
            classes = ["cat", "dog"]
            [[camera]]
            name = "gate"
            device = "/dev/video0"
            rotate = 90
            region = [{ name = "bench", box = [0.1, 0.2, 0.3, 0.4] }]
            controls = { focus_absolute = 30 }
            [[rule]]
            name = "pet"
            classes = ["@pets"]
            not_classes = ["catamaran"]
            schedule = ["mon-fri 18:00-06:00"]
            armed_by = "mqtt"
            escalate = ["siren"]
            escalate_after = "90s"
            [action.siren]
            type = "gpio"
            chip = "pinctrl-rp1"
            line = 17
            mode = "pulse"
            [action.broker]
            type = "mqtt"
            url = "mqtt://broker"
        "#,
        );
        for shown in [
            "Europe/Berlin",
            "group pets",
            "[\"rotate\",\"90\"]",
            "[\"region bench\",\"0.1, 0.2, 0.3, 0.4\"]",
            "[\"focus_absolute\",\"30\"]",
            "[\"stale\",\"10s\"]",
            "[\"on / off\",\"0.6 / 0.4\"]",
            "catamaran",
            "mon,tue,wed,thu,fri 18:00-06:00",
            "[\"armed by\",\"mqtt\"]",
            "siren after 90s",
            "line 17 of pinctrl-rp1",
            "pulse of 500ms",
        ] {
            assert!(described.contains(shown), "{shown}: {described}");
        }
    }
}
