//! Who may read, and who may do something.
//!
//! - On loopback everybody may read, unless the page is private; elsewhere reading needs the token. Every action needs it.
//! - The token is given in a form, once, and answered by a cookie (HttpOnly, SameSite=Strict) with a random session of twelve hours; or by a
//!   program in `Authorization: Bearer`.
//! - The `Host` must be an address, this host's name or a configured one: a page of a stranger whose name was made to point here
//!   (DNS rebinding) has another.
//! - An action by cookie must come from a page of ours: its `Origin` is our `Host`, and it carries a header that a form cannot send.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::plan::PagePlan;

const SESSION: Duration = Duration::from_secs(12 * 3600);
/// The oldest session makes room.
const MOST_SESSIONS: usize = 32;
/// Wrong tokens that may come at once; then one every [`RECOVERY`].
const PATIENCE: u32 = 5;
const RECOVERY: Duration = Duration::from_secs(10);
/// Sent with every action by our own script.
const MARK: &str = "x-spotter";

type Hash = [u8; 32];

/// The page's doorkeeper.
pub(super) struct Access {
    token: Option<Hash>,
    open: bool,
    hosts: Vec<String>,
    state: Mutex<State>,
}

struct State {
    /// The hash of each session's cookie, and its end.
    sessions: VecDeque<(Hash, Instant)>,
    patience: u32,
    refilled: Instant,
}

/// What came of a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// The value of the cookie.
    Session(String),
    Wrong,
    /// Too many wrong tokens lately: even the right one has to wait.
    Wait,
}

impl Access {
    pub(super) fn new(plan: &PagePlan) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        let named = ["localhost".to_owned(), format!("{own}.local"), own];
        Self {
            token: plan.token.as_ref().map(|token| hash(token.reveal())),
            open: plan.listen.ip().is_loopback() && !plan.private,
            hosts: plan.hosts.iter().cloned().chain(named).collect(),
            state: Mutex::new(State { sessions: VecDeque::new(), patience: PATIENCE, refilled: Instant::now() }),
        }
    }

    /// Whether the page may be called by the `Host` of this request.
    pub(super) fn is_called_rightly(&self, headers: &HeaderMap) -> bool {
        let Some(host) = text(headers, header::HOST) else { return false };
        let name = host_name(host).to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }

    /// Whether there is a token at all, without which nothing can be done here.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn may_read(&self, headers: &HeaderMap) -> bool {
        self.open || self.has_bearer(headers) || self.has_session(headers)
    }

    pub(super) fn may_act(&self, headers: &HeaderMap) -> bool {
        let ours = is_from_our_page(headers) && headers.contains_key(MARK);
        self.has_bearer(headers) || (ours && self.has_session(headers))
    }

    /// Exchanges the token for a session.
    pub(super) fn log_in(&self, token: &str) -> Login {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.may_try() {
            return Login::Wait;
        }
        if self.token != Some(hash(token)) {
            state.patience -= 1;
            return Login::Wrong;
        }
        let mut random = [0; 32];
        // Fails before the kernel's generator is seeded only, which it is before any network.
        if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()) != Ok(random.len()) {
            return Login::Wait;
        }
        let cookie: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        if state.sessions.len() == MOST_SESSIONS {
            state.sessions.pop_front();
        }
        state.sessions.push_back((hash(&cookie), Instant::now() + SESSION));
        Login::Session(cookie)
    }

    /// Ends the session of this request.
    pub(super) fn log_out(&self, headers: &HeaderMap) {
        let Some(cookie) = cookie(headers).map(hash) else { return };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sessions.retain(|(session, _)| *session != cookie);
    }

    /// Compared as hashes: how long that takes tells nothing of the token.
    fn has_bearer(&self, headers: &HeaderMap) -> bool {
        let given = text(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        given.is_some_and(|token| self.token == Some(hash(token)))
    }

    pub(super) fn has_session(&self, headers: &HeaderMap) -> bool {
        let Some(cookie) = cookie(headers).map(hash) else { return false };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.sessions.retain(|(_, end)| *end > now);
        state.sessions.iter().any(|(session, _)| *session == cookie)
    }
}

impl State {
    fn may_try(&mut self) -> bool {
        let earned = (self.refilled.elapsed().as_secs() / RECOVERY.as_secs()).min(u64::from(PATIENCE)) as u32;
        if earned > 0 {
            self.patience = (self.patience + earned).min(PATIENCE);
            self.refilled = Instant::now();
        }
        self.patience > 0
    }
}

/// The `Origin` is the host that the request is for. Every browser sends it with a POST.
pub(super) fn is_from_our_page(headers: &HeaderMap) -> bool {
    let origin = text(headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
    matches!((origin, text(headers, header::HOST)), (Some(("http" | "https", origin)), Some(host)) if origin == host)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix("spotter="))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Without the port, and an IPv6 address without its brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Secret;

    const TOKEN: &str = "0123456789abcdef";

    fn access(listen: &str, private: bool) -> Access {
        Access::new(&PagePlan {
            listen: listen.parse().unwrap(),
            token: Some(Secret::new(TOKEN.into())),
            private,
            hosts: vec!["garden.example.org".into()],
            photos: None,
        })
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn reading_is_free_on_an_open_loopback_only() {
        for (listen, private, free) in
            [("127.0.0.1:1", false, true), ("127.0.0.1:1", true, false), ("0.0.0.0:1", false, false)]
        {
            let access = access(listen, private);
            assert_eq!(access.may_read(&HeaderMap::new()), free, "{listen} {private}");
            assert!(access.may_read(&headers(&[("authorization", &format!("Bearer {TOKEN}"))])));
            assert!(!access.may_act(&HeaderMap::new()));
        }
    }

    #[test]
    fn an_action_by_cookie_needs_our_origin_and_our_mark() {
        let access = access("127.0.0.1:1", false);
        let Login::Session(session) = access.log_in(TOKEN) else { panic!("the token is right") };
        let (cookie, host) = (format!("a=b; spotter={session}"), "localhost:1");
        for (origin, mark, may) in [
            (Some("http://localhost:1"), true, true),
            (Some("https://localhost:1"), true, true),
            (Some("http://localhost:1"), false, false),
            (Some("http://localhost:2"), true, false),
            (Some("null"), true, false),
            (None, true, false),
        ] {
            let mut given = headers(&[("cookie", &cookie), ("host", host)]);
            origin.map(|origin| given.insert(header::ORIGIN, origin.parse().unwrap()));
            if mark {
                given.insert(MARK, "1".parse().unwrap());
            }
            assert_eq!(access.may_act(&given), may, "{origin:?} {mark}");
        }
        let given = headers(&[("cookie", &cookie)]);
        assert!(access.has_session(&given));
        access.log_out(&given);
        assert!(!access.has_session(&given));
    }

    #[test]
    fn guessing_is_slowed_down_for_the_right_token_too() {
        let access = access("127.0.0.1:1", false);
        for _ in 0..PATIENCE {
            assert_eq!(access.log_in("wrong"), Login::Wrong);
        }
        assert_eq!(access.log_in(TOKEN), Login::Wait);
        access.state.lock().unwrap().refilled -= RECOVERY;
        assert!(matches!(access.log_in(TOKEN), Login::Session(_)));
    }

    #[test]
    fn a_strangers_name_that_points_here_is_refused() {
        let access = access("127.0.0.1:1", false);
        for (host, rightly) in [
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("LOCALHOST", true),
            ("garden.example.org:443", true),
            ("evil.example.org", false),
            ("127.0.0.1.evil.org", false),
            ("", false),
        ] {
            assert_eq!(access.is_called_rightly(&headers(&[("host", host)])), rightly, "{host}");
        }
        assert!(!access.is_called_rightly(&HeaderMap::new()));
    }
}
