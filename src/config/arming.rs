//! `armed_by` and `armed` of a rule.

use super::keys::Section;
use super::plan::{ArmedBy, ArmingInput, Bias, GpioLine};
use super::reader::Table;

/// Whether any action of `[action]` is a broker.
pub(super) fn has_broker(actions: &Table<'_>) -> bool {
    let is_broker = |name: &String| actions.table_quietly(name).is_some_and(|table| table.is_word("type", "mqtt"));
    actions.keys().iter().any(is_broker)
}

/// Reads what arms a rule, and whether it is armed at first. `broker`: there is one that can.
pub(super) fn read(rule: &Table<'_>, broker: bool) -> (Option<ArmedBy>, bool) {
    let armed = rule.boolean("armed").unwrap_or(true);
    if rule.has("armed") && !rule.has("armed_by") {
        rule.problem("armed", "has no effect without `armed_by`: the rule is always armed; add that, or remove this");
    }
    if !rule.has("armed_by") {
        return (None, armed);
    }
    if rule.is_table("armed_by") {
        let input = rule.table("armed_by", Section::ArmedBy).map(|table| ArmedBy::Gpio(input(&table)));
        return (input, armed);
    }
    let by = rule.choice("armed_by", &[("mqtt", ())]).map(|()| ArmedBy::Mqtt);
    if by.is_some() && !broker {
        rule.problem("armed_by", "is heard on a broker, and there is none; add an action with `type = \"mqtt\"`");
    }
    (by, armed)
}

fn input(table: &Table<'_>) -> ArmingInput {
    let line = table.integer("line", super::action::LINES).and_then(|line| u32::try_from(line).ok());
    let name = table.text("name");
    match (table.has("line"), table.has("name")) {
        (true, true) => table.problem("name", "says the line a second time beside `line`; keep one of them"),
        (false, false) => table.problem("line", "is missing; add for instance `line = 27`, or `name = \"GPIO27\"`"),
        (true, false) if !table.has("chip") => {
            table.problem("chip", "is missing, and `line` counts on a chip; add for instance `chip = \"pinctrl-rp1\"`");
        }
        _ => {}
    }
    let biases = [("as-is", Bias::AsIs), ("pull-up", Bias::PullUp), ("pull-down", Bias::PullDown)];
    ArmingInput {
        chip: table.text("chip"),
        line: match (line, name) {
            (None, Some(name)) => GpioLine::Name(name),
            (line, _) => GpioLine::Offset(line.unwrap_or(0)),
        },
        active_low: table.boolean("active_low").unwrap_or(false),
        bias: table.choice("bias", &biases).unwrap_or(Bias::AsIs),
    }
}
