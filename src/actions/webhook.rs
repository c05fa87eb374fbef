//! `type = "webhook"`: each event's JSON (see [`payload`](super::payload)) posted to a server, one after another.
//!
//! An answer 2xx is success. No answer, 408, 425, 429 and 5xx are tried again with growing pauses (a `Retry-After` in
//! seconds is honoured), as often as configured; then the event is given up and counted. Any other answer would not
//! change by repetition: it is said, and the event is counted at once. Redirections are not followed. An event that is
//! sent again has the same `id`, which is also its `Idempotency-Key`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::outbox::{Outbox, Overflow, Taken};
use super::payload::EventPayload;
use super::pins::Shared;
use super::runner::{self, ActionHandle, Health, StatusCell};
use super::{ActionError, fnv1a, tls};
use crate::backoff::Backoff;
use crate::config::plan::WebhookPlan;
use crate::rules::Event;

/// The pauses between the attempts for one event.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

pub(super) fn spawn(name: Arc<str>, plan: &WebhookPlan, context: &Arc<Shared>) -> Result<ActionHandle, ActionError> {
    let outbox = Arc::new(Outbox::new(plan.queue, Overflow::Drop));
    let status = Arc::new(StatusCell::new(name.clone()));
    let mut webhook = Webhook {
        backoff: Backoff::new(RETRY.0, RETRY.1, fnv1a(&[context.device.as_bytes(), name.as_bytes()])),
        action: name.clone(),
        server: server(plan.url.reveal()).to_owned(),
        plan: plan.clone(),
        context: context.clone(),
        queue: outbox.clone(),
        status: status.clone(),
        agent: None,
    };
    runner::spawn(name, outbox, status, move || webhook.work())
}

struct Webhook {
    action: Arc<str>,
    plan: WebhookPlan,
    /// Scheme, host and port: what may be shown.
    server: String,
    context: Arc<Shared>,
    queue: Arc<Outbox>,
    status: Arc<StatusCell>,
    backoff: Backoff,
    /// Keeps the connection between events; made anew after a failure, so that a replaced `ca` is read.
    agent: Option<Agent>,
}

/// Why an attempt was no success.
struct Failure {
    health: Health,
    reason: String,
    /// Another attempt may succeed; not before this long, if the server says so.
    again: Option<Duration>,
}

impl Webhook {
    fn work(&mut self) {
        while let Taken::Event(event) = self.queue.take(None) {
            let payload = self.context.payload(&event);
            if !self.deliver(&event, &payload) {
                return;
            }
        }
    }

    /// One event, with its repetitions. `false`: the action must end, and the event is left behind.
    fn deliver(&mut self, event: &Event, payload: &EventPayload) -> bool {
        let json = payload.to_json();
        self.backoff.reset();
        for attempt in 0..=self.plan.retries {
            if !self.queue.pause(Instant::now()) {
                return false;
            }
            let Failure { health, reason, again } = match self.post(&payload.id, &json) {
                Ok(()) => {
                    self.status.set(Health::Ready, format!("posts events to {}", self.server));
                    self.context.observer.delivered(&self.action, event);
                    return true;
                }
                Err(failure) => failure,
            };
            self.agent = None;
            let (Some(least), true) = (again, attempt < self.plan.retries) else {
                self.status.set(health, format!("{}: {reason}; the event is given up and counted", self.server));
                break;
            };
            self.status.set(health, format!("{}: {reason}; trying again", self.server));
            if !self.queue.pause(Instant::now() + self.backoff.next_delay().max(least)) {
                return false;
            }
        }
        self.queue.count_lost();
        true
    }

    /// One attempt.
    fn post(&mut self, id: &str, json: &str) -> Result<(), Failure> {
        let timeout = self.time_left();
        let agent = match &mut self.agent {
            Some(agent) => agent,
            slot => {
                // The file may be mended while we wait.
                let again = Some(Duration::ZERO);
                let made = agent(&self.plan).map_err(|reason| Failure { health: Health::Rejected, reason, again })?;
                slot.insert(made)
            }
        };
        let mut request = agent
            .post(self.plan.url.reveal())
            .header("content-type", "application/json")
            .header("idempotency-key", id)
            .config()
            .timeout_global(Some(timeout))
            .build();
        if let Some(token) = &self.plan.token {
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        let response = request.send(json).map_err(|error| explain(&error))?;
        judge(response.status(), &response)
    }

    /// For an attempt: the time-out, or what a close leaves of it.
    fn time_left(&self) -> Duration {
        let left = self.queue.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.map_or(self.plan.timeout, |left| left.min(self.plan.timeout)).max(Duration::from_millis(1))
    }
}

fn agent(plan: &WebhookPlan) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("spotter/", env!("CARGO_PKG_VERSION")));
    if plan.url.reveal().starts_with("https://") {
        let authorities = tls::authorities(plan.ca.as_deref())?;
        let authorities: Vec<_> =
            authorities.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&authorities))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        config = config.tls_config(tls.build());
    }
    Ok(config.build().new_agent())
}

/// What an answer means.
fn judge<B>(status: StatusCode, response: &Response<B>) -> Result<(), Failure> {
    let said = format!("the server answers {status}");
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => {
            let wait = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let least = Duration::from_secs(wait.unwrap_or(0)).min(RETRY.1);
            Err(Failure { health: Health::Degraded, reason: said, again: Some(least) })
        }
        code => {
            let hint = match code {
                300..=399 => "; write the address that it leads to",
                401 | 403 => "; check `token`",
                _ => "; check `url`",
            };
            Err(Failure { health: Health::Rejected, reason: said + hint, again: None })
        }
    }
}

/// What the absence of an answer means.
fn explain(error: &ureq::Error) -> Failure {
    let certificate = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => tls::within(error),
        _ => None,
    };
    let (health, reason) = match (certificate, error) {
        (Some(error), _) => tls::explain(error),
        (None, ureq::Error::Timeout(_)) => (Health::Degraded, "no answer in time".to_owned()),
        (None, ureq::Error::HostNotFound) => (Health::Degraded, "there is no such host".to_owned()),
        (None, error) => (Health::Degraded, error.to_string()),
    };
    Failure { health, reason, again: Some(Duration::ZERO) }
}

/// Scheme, host and port of `url`.
fn server(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find(['/', '?', '#']).map_or(url, |path| &url[..host + path])
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
