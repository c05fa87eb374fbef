//! The kernel's GPIO character device: edges with the kernel's stamps.

use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::line::{self, EdgeDetection, EdgeKind, Value};

use super::Input;
use crate::actions::gpio::GpioError;
use crate::actions::gpio::chardev::{consumer, describe, explain_request, find};
use crate::clock::Monotonic;
use crate::config::plan::{Bias, InputPlan};

/// An edge's stamp that is further away from now than this is not of our clock: uAPI v1 stamped with the wall clock before Linux
/// 5.7 (the Jetson Nano's 4.9).
const PLAUSIBLE: Duration = Duration::from_secs(10);

struct ChardevInput {
    request: Request,
    name: String,
}

pub(super) fn open(plan: &InputPlan) -> Result<Box<dyn Input>, GpioError> {
    let (chip, line) = find(plan.chip.as_deref(), &plan.line)?;
    let name = describe(&chip, &line);
    let mut builder = Request::builder();
    builder.on_chip(&chip.path).with_consumer(consumer(&plan.name)).with_line(line.offset).as_input();
    builder.with_edge_detection(EdgeDetection::BothEdges).with_bias(bias(plan.bias));
    if plan.active_low {
        builder.as_active_low();
    }
    let request = builder.request().map_err(|error| explain_request(&chip, line.offset, &name, &error))?;
    Ok(Box::new(ChardevInput { request, name }))
}

fn bias(bias: Bias) -> Option<line::Bias> {
    match bias {
        Bias::AsIs => None,
        Bias::PullUp => Some(line::Bias::PullUp),
        Bias::PullDown => Some(line::Bias::PullDown),
        Bias::Disabled => Some(line::Bias::Disabled),
    }
}

impl ChardevInput {
    fn failed(&self, error: &gpiocdev::Error) -> GpioError {
        GpioError::Access { doing: "reading", line: self.name.clone(), reason: error.to_string() }
    }
}

impl Input for ChardevInput {
    fn active(&mut self) -> Result<bool, GpioError> {
        Ok(self.request.lone_value().map_err(|error| self.failed(&error))? == Value::Active)
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<(bool, Monotonic)>, GpioError> {
        if !self.request.wait_edge_event(timeout).map_err(|error| self.failed(&error))? {
            return Ok(None);
        }
        let event = self.request.read_edge_event().map_err(|error| self.failed(&error))?;
        let (stamp, now) = (Monotonic::from_duration(Duration::from_nanos(event.timestamp_ns)), Monotonic::now());
        let at = if stamp <= now && now.since(stamp) < PLAUSIBLE { stamp } else { now };
        Ok(Some((event.kind == EdgeKind::Rising, at)))
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}
