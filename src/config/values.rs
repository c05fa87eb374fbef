//! The small languages inside of values: durations, URLs, names, `${VARIABLES}`.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::{DeInteger, DeValue};

use super::similar::nearest;

/// Reads `"500ms"`, `"2s"`, `"1.5s"`, `"1m"`, `"1h"`.
///
/// # Errors
/// What is wrong with it, and how a duration is written.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write a number and ms, s, m or h, such as \"500ms\" or \"2s\"");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    // Rounded to microseconds, so that "500ms" is exactly that.
    Duration::try_from_secs_f64((number * factor * 1e6).round() / 1e6).map_err(|_| wrong())
}

/// A duration within `range`.
pub(super) fn duration_within(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let value = duration(text)?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("{text:?} is out of range; write {:?} to {:?}", range.start(), range.end()))
}

/// Letters, digits, `-` and `_`: what an MQTT topic, a Home Assistant object id and `camera/region` all take.
pub(super) fn name(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match text.chars().find(|&c| !allowed(c)) {
        Some(bad) => Err(format!("{text:?} is no name, because of {bad:?}; use letters a-z, digits, - and _ only")),
        None if text.is_empty() => Err("is empty; use letters, digits, - and _".into()),
        None if text.len() > 64 => Err(format!("{text:?} is too long; at most 64 characters are allowed")),
        None => Ok(()),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let words = || choices.iter().map(|(name, _)| *name);
    let meant = nearest(text, words()).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    Err(format!("{text:?} is not known; write {}{meant}", enumerate(words())))
}

/// `"a", "b" or "c"`; the first twelve of them.
pub(super) fn enumerate<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., _] if first.len() > 12 => format!("{}, …", first[..12].join(", ")),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Fills in `${NAME}`; `$$` is one dollar sign, and any other `$` stands for itself.
pub(super) fn expand(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            let end = after.find('}').ok_or("a \"${\" has no \"}\"; close it, or write \"$${\" for the characters")?;
            let variable = &after[..end];
            // The environment of a process cannot hold such names, and asking for them may panic.
            let known = if variable.is_empty() || variable.contains(['=', '\0']) { None } else { variables(variable) };
            out.push_str(&known.ok_or_else(|| {
                format!("the environment variable {variable:?} is not set; set it (under systemd by Environment= or EnvironmentFile=), or write \"$${{\" for the characters")
            })?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
            rest = rest.strip_prefix('$').unwrap_or(rest);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BrokerUrl {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// User and password.
    pub(super) user: Option<(String, Option<String>)>,
}

/// `mqtt(s)://[user[:password]@]host[:port]`; ports as registered with IANA, 1883 and 8883.
pub(super) fn broker_url(text: &str) -> Result<BrokerUrl, String> {
    // The password must not show in a log, so the text is never repeated.
    let wrong =
        |what: &str| format!("{what}; write \"mqtt://host\", \"mqtts://host:8883\" or \"mqtts://user:password@host\"");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("the URL has no \"://\""))?;
    let tls = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        // Anything else in front may be a misplaced password.
        _ if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            return Err(wrong(&format!("the scheme {scheme:?} is not known")));
        }
        _ => return Err(wrong("the scheme is not known")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, address) = rest.rsplit_once('@').map_or((None, rest), |(user, address)| (Some(user), address));
    let (host, port) = host_and_port(address).ok_or_else(|| wrong("the port is no number from 1 to 65535"))?;
    if host.is_empty() || host.contains(['/', '?', '#', ' ', '[', ']']) {
        return Err(wrong("the host is no name or address"));
    }
    let undecodable = || wrong("a % in the user or password is not followed by two hexadecimal digits of UTF-8");
    let user = match user.map(|user| user.split_once(':').map_or((user, None), |(user, pass)| (user, Some(pass)))) {
        Some((user, password)) => {
            let password = password.map(|password| percent_decode(password).ok_or_else(undecodable)).transpose()?;
            Some((percent_decode(user).ok_or_else(undecodable)?, password))
        }
        None => None,
    };
    Ok(BrokerUrl { tls, host: host.to_owned(), port: port.unwrap_or(if tls { 8883 } else { 1883 }), user })
}

/// `host`, `host:port`, `[address]`, `[address]:port`; `None` for a bad port.
fn host_and_port(address: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    match port {
        Some(port) => Some((host, Some(port.parse().ok().filter(|&port| port != 0)?))),
        None => Some((host, None)),
    }
}

/// `%41` is `A`.
fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?].map(|digit| char::from(digit).to_digit(16));
        out.push((digits[0]? * 16 + digits[1]?) as u8);
    }
    String::from_utf8(out).ok()
}

/// An MQTT topic that others are made from.
pub(super) fn topic(text: &str) -> Result<String, String> {
    if text.contains(['+', '#']) || text.chars().any(char::is_control) {
        return Err(format!("{text:?} holds a wildcard or control character; + and # are for subscribers only"));
    }
    if text.starts_with('/') || text.ends_with('/') || text.starts_with('$') || text.len() > 256 {
        return Err(format!("{text:?} is no topic to build on; no / at its ends, no $ before, at most 256 bytes"));
    }
    Ok(text.to_owned())
}

/// An integer of TOML, if it fits.
pub(super) fn integer(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// An integer or float of TOML.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) => integer(number).map(|number| number as f64),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

/// What a value is, for a message: `a string`, `an integer`.
pub(super) fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A key as it is written: bare if it may be, shortened if it is absurdly long.
pub(super) fn quoted_key(key: &str) -> String {
    if name(key).is_ok() { key.to_owned() } else { format!("{:?}", key.chars().take(64).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", 500), ("2s", 2000), ("1.5s", 1500), ("0s", 0), ("1m", 60_000), ("1 h", 3_600_000), ("0.1ms", 0)]
        {
            assert_eq!(duration(text).map(|duration| duration.as_millis()), Ok(millis), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1d", "1s2", "1..5s", "1e9s", "1µs", "99999999999999999999999999h", "٣s"] {
            assert!(duration(text).expect_err(text).contains("is no duration"), "{text}");
        }
        let range = Duration::from_millis(10)..=Duration::from_secs(60);
        assert!(duration_within("1m", &range).is_ok());
        assert_eq!(duration_within("61s", &range), Err("\"61s\" is out of range; write 10ms to 60s".into()));
    }

    #[test]
    fn variables() {
        let variables = |name: &str| (name == "HOME").then(|| "/home/${X}".to_owned());
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("${HOME}/x", Ok("/home/${X}/x")),
            ("a$$b$$${HOME}", Ok("a$b$/home/${X}")),
            ("$${HOME}", Ok("${HOME}")),
            ("100$ or $HOME", Ok("100$ or $HOME")),
            ("${NONE}", Err("\"NONE\" is not set")),
            ("${}", Err("is not set")),
            ("${A=B}", Err("is not set")),
            ("${HOME", Err("has no \"}\"")),
        ] {
            match (expand(text, &variables), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn broker_urls() {
        let url = |tls, host: &str, port, user: Option<(&str, Option<&str>)>| BrokerUrl {
            tls,
            host: host.into(),
            port,
            user: user.map(|(user, password)| (user.to_owned(), password.map(str::to_owned))),
        };
        for (text, expected) in [
            ("mqtt://broker", url(false, "broker", 1883, None)),
            ("mqtts://broker.local:8883/", url(true, "broker.local", 8883, None)),
            ("mqtts://broker", url(true, "broker", 8883, None)),
            ("mqtt://[::1]:1884", url(false, "::1", 1884, None)),
            ("mqtt://[fe80::1]", url(false, "fe80::1", 1883, None)),
            ("mqtt://joe:p%40ss:w@h", url(false, "h", 1883, Some(("joe", Some("p@ss:w"))))),
            ("mqtt://joe@h:1", url(false, "h", 1, Some(("joe", None)))),
        ] {
            assert_eq!(broker_url(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("broker", "no \"://\""),
            ("http://secret@broker", "scheme \"http\""),
            ("joe:secret@mqtt://broker", "scheme is not"),
            ("mqtt://", "host"),
            ("mqtt://secret@:1883", "host"),
            ("mqtt://h:0", "port"),
            ("mqtt://h:65536", "port"),
            ("mqtt://[::1]1883", "port"),
            ("mqtt://h/topic", "host"),
            ("mqtt://::1", "port"),
            ("mqtt://j:secret%4@h", "two hexadecimal"),
            ("mqtt://j:secret%ff@h", "two hexadecimal"),
        ] {
            let error = broker_url(text).expect_err(text);
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn names_topics_and_choices() {
        for good in ["feeder", "Cam-2_b", "7"] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        for bad in ["", "a/b", "a+b", "#", "a b", "ä", "a.b"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(name(&"x".repeat(65)).is_err());
        for bad in ["a/#", "+", "/a", "a/", "$SYS", "a\nb"] {
            assert!(topic(bad).is_err(), "{bad}");
        }
        assert_eq!(topic("home/spotter"), Ok("home/spotter".into()));
        let choices = [("follow", 1), ("pulse", 2)];
        assert_eq!(choice("pulse", &choices), Ok(2));
        let error = choice("plse", &choices).expect_err("unknown");
        assert_eq!(error, "\"plse\" is not known; write \"follow\" or \"pulse\"; did you mean \"pulse\"?");
    }
}
