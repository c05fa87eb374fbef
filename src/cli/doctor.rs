//! `spotter doctor`

use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::outcome::{Failure, Outcome};
use super::{Format, print_json};
use crate::actions::gpio::list_chips;
use crate::capture::v4l2::list_devices;
use crate::config;
use crate::config::plan::ActionKind;
use crate::kernels::Kernel;

/// Say what this board has: cameras and their formats, GPIO chips and who holds their lines, the kernels that the CPU can
/// run, and whether the configured brokers answer.
#[derive(Debug, Args)]
#[command(after_help = "Example: spotter doctor --config garden.toml")]
pub(super) struct Doctor {
    /// Also try the brokers of this configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the findings are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Doctor {
    pub(super) fn execute(&self) -> Outcome {
        let (chips, gpio_error) = match list_chips() {
            Ok(chips) => (chips, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let kernels: Vec<_> = Kernel::available().iter().map(ToString::to_string).collect();
        let report = json!({
            "cpu": { "architecture": std::env::consts::ARCH, "kernels": kernels, "chosen": Kernel::best().to_string(),
                     "cores": std::thread::available_parallelism().map_or(1, usize::from) },
            "cameras": list_devices(),
            "gpio": chips,
            "gpio_error": gpio_error,
            "brokers": self.brokers()?,
        });
        if self.format == Format::Json {
            return print_json(&report);
        }
        print_text(&report);
        Ok(())
    }

    fn brokers(&self) -> Result<Vec<Value>, Failure> {
        let Some(path) = &self.config else { return Ok(Vec::new()) };
        let plan = config::load(path).map_err(Failure::configuration)?;
        let brokers = plan.actions.iter().filter_map(|action| match &action.kind {
            ActionKind::Mqtt(mqtt) => {
                let trouble = reach(&mqtt.host, mqtt.port).err();
                Some(json!({ "action": *action.name, "host": mqtt.host, "port": mqtt.port, "trouble": trouble }))
            }
            _ => None,
        });
        Ok(brokers.collect())
    }
}

/// Whether something accepts connections there.
fn reach(host: &str, port: u16) -> Result<(), String> {
    let addresses = (host, port).to_socket_addrs().map_err(|e| format!("the name does not resolve: {e}"))?;
    let mut trouble = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
            Ok(_) => return Ok(()),
            Err(error) => trouble = format!("{address}: {error}"),
        }
    }
    Err(trouble)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn print_text(report: &Value) {
    let cpu = &report["cpu"];
    let kernels: Vec<_> = items(&cpu["kernels"]).map(text).collect();
    println!("CPU      {}, {} cores; kernels: {}", text(&cpu["architecture"]), cpu["cores"], kernels.join(", "));
    println!("         chosen: {}", text(&cpu["chosen"]));
    if items(&report["cameras"]).next().is_none() {
        println!("Cameras  none (is the user in the group video?)");
    }
    for camera in items(&report["cameras"]) {
        println!("Camera   {} \"{}\" ({})", text(&camera["path"]), text(&camera["card"]), text(&camera["driver"]));
        items(&camera["links"]).for_each(|link| println!("         {}", text(link)));
        for format in items(&camera["formats"]) {
            let sizes: Vec<_> = items(&format["sizes"]).map(|s| format!("{}x{}", s[0], s[1])).collect();
            println!("         {}: {}", text(&format["fourcc"]), sizes.join(" "));
        }
    }
    if let Some(error) = report["gpio_error"].as_str() {
        println!("GPIO     {error}");
    } else if items(&report["gpio"]).next().is_none() {
        println!("GPIO     no chip");
    }
    for chip in items(&report["gpio"]) {
        let count = items(&chip["lines"]).count();
        println!("GPIO     {} \"{}\", {count} lines", text(&chip["path"]), text(&chip["label"]));
        for line in items(&chip["lines"]).filter(|l| l["used"] == true) {
            let (name, holder) = (text(&line["name"]), text(&line["consumer"]));
            println!("         line {} {name}: held by \"{holder}\"", line["offset"]);
        }
    }
    for broker in items(&report["brokers"]) {
        let trouble = broker["trouble"].as_str().unwrap_or("answers");
        println!("Broker   {} {}:{}: {trouble}", text(&broker["action"]), text(&broker["host"]), broker["port"]);
    }
}
