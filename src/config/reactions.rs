//! `[action.NAME]` of the types `hook`, `webhook` and `snapshot`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::defaults::{
    DEFAULT_HOOK_PARALLEL, DEFAULT_HOOK_QUEUE, DEFAULT_HOOK_TIMEOUT, DEFAULT_SNAPSHOT_COUNT,
    DEFAULT_SNAPSHOT_MEGABYTES, DEFAULT_SNAPSHOT_QUALITY, DEFAULT_WEBHOOK_QUEUE, DEFAULT_WEBHOOK_RETRIES,
    DEFAULT_WEBHOOK_TIMEOUT,
};
use super::plan::{HookPlan, Secret, SnapshotPlan, WebhookPlan};
use super::reader::Table;
use super::secrets;

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const QUEUE: RangeInclusive<i64> = 1..=4096;

pub(super) fn hook(table: &Table<'_>) -> HookPlan {
    table.require("command");
    let command: Vec<String> = table.strings("command").unwrap_or_default().into_iter().map(|(_, word)| word).collect();
    if table.is_empty_list("command") {
        table.problem("command", "is empty; write the program and its arguments, such as `[\"/usr/local/bin/alarm\"]`");
    }
    HookPlan {
        command,
        timeout: table.duration("timeout", TIMEOUT).unwrap_or(DEFAULT_HOOK_TIMEOUT),
        parallel: whole(table, "parallel", 1..=16, DEFAULT_HOOK_PARALLEL),
        queue: whole(table, "queue", QUEUE, DEFAULT_HOOK_QUEUE),
    }
}

pub(super) fn webhook(table: &Table<'_>) -> WebhookPlan {
    table.require("url");
    let url = table.parsed("url", http_url).unwrap_or_default();
    if table.has("ca") && url.starts_with("http://") {
        table.problem("ca", "has no effect without TLS; write https:// in the URL, or remove it");
    }
    WebhookPlan {
        url: Secret::new(url),
        token: secrets::read(table, "token", "token_file", None).map(Secret::new),
        ca: table.path("ca"),
        timeout: table.duration("timeout", TIMEOUT).unwrap_or(DEFAULT_WEBHOOK_TIMEOUT),
        retries: whole(table, "retries", 0..=100, DEFAULT_WEBHOOK_RETRIES),
        queue: whole(table, "queue", QUEUE, DEFAULT_WEBHOOK_QUEUE),
    }
}

pub(super) fn snapshot(table: &Table<'_>) -> SnapshotPlan {
    table.require("folder");
    let megabytes: u64 = whole(table, "megabytes", 1..=1_000_000, DEFAULT_SNAPSHOT_MEGABYTES);
    SnapshotPlan {
        folder: table.path("folder").unwrap_or_default(),
        count: whole(table, "count", 1..=100_000, DEFAULT_SNAPSHOT_COUNT),
        bytes: megabytes * 1_000_000,
        quality: whole(table, "quality", 1..=100, DEFAULT_SNAPSHOT_QUALITY),
    }
}

fn whole<T: TryFrom<i64>>(table: &Table<'_>, key: &str, range: RangeInclusive<i64>, default: T) -> T {
    table.integer(key, range).and_then(|number| T::try_from(number).ok()).unwrap_or(default)
}

/// An address that can be posted to. What is wrong is said without it, since it may hold a secret.
fn http_url(text: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("{what}; write for instance \"https://home.local:8123/api/webhook/spotter\""));
    let Some((scheme, rest)) = text.split_once("://") else { return wrong("the URL has no \"://\"") };
    if !matches!(scheme, "http" | "https") {
        return wrong("the URL begins neither with http:// nor with https://");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return wrong("the URL holds a user before an @, which is not sent; use `token`");
    }
    if authority.is_empty() || authority.starts_with(':') {
        return wrong("the URL has no host");
    }
    // The port of `[::1]:80` and `host:80`; an address in brackets has colons of its own.
    let port = authority.rsplit_once(']').map_or(authority, |(_, after)| after).rsplit_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return wrong("the URL's port is no number from 1 to 65535");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("the URL holds a space or a character that is not ASCII; encode it with %");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_never_repeated() {
        for good in ["http://h", "https://h:8443/a?b=c#d", "http://[::1]:8080/", "http://127.0.0.1:1/x"] {
            assert_eq!(http_url(good), Ok(good.to_owned()));
        }
        for (bad, words) in [
            ("secret", "no \"://\""),
            ("ftp://secret", "neither"),
            ("http://", "no host"),
            ("http://:80/secret", "no host"),
            ("https://joe:secret@h/", "token"),
            ("http://h:99999/secret", "port"),
            ("http://h:/secret", "port"),
            ("http://h/sec ret", "a space"),
        ] {
            let error = http_url(bad).expect_err(bad);
            assert!(error.contains(words) && !error.contains("secret"), "{bad}: {error}");
        }
    }
}
