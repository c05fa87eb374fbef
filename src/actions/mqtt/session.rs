//! The connection to one broker: made, served, lost, and made again, until the outbox is closed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event as Happening, EventLoop, LastWill, MqttOptions,
    NetworkOptions, Outgoing, Packet, QoS, StateError, TlsError,
};

use super::outbox::{Closing, MqttOutbox, Publication, Token};
use super::topics::Topics;
use super::{OFFLINE, ONLINE, judge, tls};
use crate::actions::runner::{Health, Mailbox, StatusCell};
use crate::actions::{Observer, fnv1a};
use crate::backoff::Backoff;
use crate::config::plan::MqttPlan;
use crate::control::Control;

/// How many publications may be unacknowledged at once.
const WINDOW: usize = 32;

/// rumqttc's own limit, and its range of packet ids: well above the window, so that ids do not collide.
const PACKET_IDS: u16 = 512;

/// The broker is away: soon, then every few seconds, so that `online` is back within five seconds of the broker.
const ABSENT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(4));

/// The broker refuses: somebody must change something first.
const REFUSED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// A connection that has lasted this long is a good one: the next loss starts the back-off anew.
const STABLE: Duration = Duration::from_secs(10);

/// After so many short connections in a row, somebody else is likely to use our client id.
const SUSPICIOUS: u32 = 3;

/// For name, TCP, TLS and MQTT together.
const CONNECT_TIMEOUT_SECONDS: u64 = 5;

/// How long an exit with an empty outbox tries to reach the broker for its `offline`.
const LAST_TRY: Duration = Duration::from_secs(1);

/// A broker that dies without a word is noticed after at most twice this long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a session is made of.
pub(super) struct Parts {
    pub(super) action: Arc<str>,
    pub(super) client_id: String,
    pub(super) plan: MqttPlan,
    pub(super) status_topic: String,
    pub(super) topics: Topics,
    pub(super) control: Arc<Control>,
    /// Topic and payload, retained.
    pub(super) discovery: Vec<(String, String)>,
    pub(super) outbox: Arc<MqttOutbox>,
    pub(super) status: Arc<StatusCell>,
    pub(super) observer: Arc<dyn Observer>,
}

/// See the [module](self).
pub(super) struct Session {
    parts: Parts,
    absent: Backoff,
    refused: Backoff,
    /// Connections in a row that did not last.
    short: u32,
}

/// How one connection, or the attempt at one, ended.
#[derive(Debug)]
enum End {
    /// As the close of the outbox asked, or at its deadline.
    Closed,
    /// The broker did not let us in.
    Unconnected(Health, String),
    /// It let us in and was lost later.
    Lost(String),
}

impl Session {
    pub(super) fn new(parts: Parts) -> Self {
        let seed = fnv1a(&[parts.client_id.as_bytes()]);
        let absent = Backoff::new(ABSENT.0, ABSENT.1, seed);
        Self { parts, absent, refused: Backoff::new(REFUSED.0, REFUSED.1, seed), short: 0 }
    }

    pub(super) async fn run(mut self) {
        loop {
            let closing_before = self.parts.outbox.closing().is_some();
            let delay = match self.connection().await {
                End::Closed => return,
                End::Unconnected(health, reason) => self.note_unconnected(health, &reason),
                End::Lost(reason) => self.note_lost(&reason),
            };
            match self.parts.outbox.closing() {
                None => self.wait(delay).await,
                Some(closing) if !self.worth_another_try(closing, closing_before) => return,
                // Soon, but not in a tight loop.
                Some(_) => tokio::time::sleep(ABSENT.0 / 2).await,
            }
        }
    }

    /// While closing: until the deadline if there are events to save, else once, for the `offline` that a killed broker
    /// has not published.
    fn worth_another_try(&self, closing: Closing, tried: bool) -> bool {
        let wanted = self.parts.outbox.depth() > 0 || !tried;
        wanted && self.parts.status.get().health != Health::Rejected && Instant::now() < closing.deadline
    }

    fn note_unconnected(&mut self, health: Health, reason: &str) -> Duration {
        self.parts.status.set(health, format!("{}: {reason}; trying again", self.address()));
        match health {
            Health::Rejected => self.refused.next_delay(),
            _ => self.absent.next_delay(),
        }
    }

    fn note_lost(&mut self, reason: &str) -> Duration {
        let hint = match self.short >= SUSPICIOUS {
            true => format!("; does another client use the id {}?", self.parts.client_id),
            false => String::new(),
        };
        self.parts.status.set(Health::Degraded, format!("{}: {reason}{hint}; trying again", self.address()));
        self.absent.next_delay()
    }

    /// Waits for `delay`, or until the outbox is closed.
    async fn wait(&self, delay: Duration) {
        let until = tokio::time::Instant::now() + delay;
        while self.parts.outbox.closing().is_none() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.parts.outbox.changed() => {}
            }
        }
    }

    /// One connection, from its first byte to its end. Each has a fresh client: rumqttc would send what was unacknowledged
    /// before the birth, and outside our count.
    async fn connection(&mut self) -> End {
        let (client, mut eventloop) = match self.options() {
            Ok(options) => AsyncClient::new(options, WINDOW + self.parts.discovery.len() + 8),
            Err(reason) => return End::Unconnected(Health::Rejected, reason),
        };
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_TIMEOUT_SECONDS).set_tcp_nodelay(true);
        eventloop.set_network_options(network);
        match self.poll_until_closed(&mut eventloop).await {
            None => return End::Closed,
            Some(Err(error)) => {
                let (health, reason) = explain(&error);
                return End::Unconnected(health, reason);
            }
            Some(Ok(_connack)) => {}
        }
        self.parts.outbox.connected();
        if self.short < SUSPICIOUS {
            self.set_ready();
        }
        self.refused.reset();
        let link = Link { client, submitted: VecDeque::new(), in_flight: HashMap::new(), phase: Phase::Open };
        self.serve(eventloop, link).await
    }

    /// The next thing that happens; `None` when the outbox is closed and its deadline has passed.
    async fn poll_until_closed(&self, eventloop: &mut EventLoop) -> Option<Result<Happening, ConnectionError>> {
        let poll = eventloop.poll();
        tokio::pin!(poll);
        loop {
            let deadline = self.parts.outbox.closing().map(|closing| self.connect_until(closing));
            tokio::select! {
                happening = &mut poll => return Some(happening),
                () = self.parts.outbox.changed() => {}
                () = sleep_until(deadline) => return None,
            }
        }
    }

    /// With nothing to save, an exit does not wait long for a broker that is away.
    fn connect_until(&self, closing: Closing) -> Instant {
        match self.parts.outbox.depth() {
            0 => closing.deadline.min(closing.since + LAST_TRY),
            _ => closing.deadline,
        }
    }

    /// From the birth to the loss or the close.
    async fn serve(&mut self, mut eventloop: EventLoop, mut link: Link) -> End {
        let began = Instant::now();
        let mut stable_at = Some(began + STABLE);
        if let Err(reason) = self.greet(&mut link) {
            return End::Lost(reason);
        }
        loop {
            let happening = {
                // The future of a poll is kept until it is done: dropped halfway, rumqttc can lose a packet.
                let poll = eventloop.poll();
                tokio::pin!(poll);
                loop {
                    if let Err(reason) = self.pump(&mut link) {
                        return End::Lost(reason);
                    }
                    let closing = self.parts.outbox.closing();
                    let timer = closing.map(|closing| link.deadline(closing));
                    if link.phase != Phase::Open && timer.is_some_and(|timer| Instant::now() >= timer) {
                        return End::Closed;
                    }
                    tokio::select! {
                        happening = &mut poll => break happening,
                        () = self.parts.outbox.changed() => {}
                        () = sleep_until(timer) => {}
                        () = sleep_until(stable_at) => {
                            stable_at = None;
                            self.settle();
                        }
                    }
                }
            };
            match happening {
                Ok(happening) => {
                    if self.handle(&mut link, &happening) {
                        return End::Closed;
                    }
                }
                Err(error) => {
                    // What arrived together with the end: acknowledgements that save a second sending.
                    for happening in std::mem::take(&mut eventloop.state.events) {
                        self.handle(&mut link, &happening);
                    }
                    return self.lost(&error, began.elapsed(), link.phase);
                }
            }
        }
    }

    fn lost(&mut self, error: &ConnectionError, lived: Duration, phase: Phase) -> End {
        if phase == Phase::Left {
            return End::Closed;
        }
        self.short = if lived < STABLE { self.short.saturating_add(1) } else { 0 };
        let (_, reason) = explain(error);
        End::Lost(format!("the connection was lost after {:.1} s: {reason}", lived.as_secs_f64()))
    }

    /// The connection has lasted.
    fn settle(&mut self) {
        self.short = 0;
        self.absent.reset();
        self.set_ready();
    }

    fn set_ready(&self) {
        self.parts.status.set(Health::Ready, format!("connected to {} as {}", self.address(), self.parts.client_id));
    }

    /// The birth before anything else, then discovery. The states follow from the outbox.
    fn greet(&self, link: &mut Link) -> Result<(), String> {
        link.publish(retained(Token::Greeting, &self.parts.status_topic, ONLINE))?;
        for (topic, payload) in &self.parts.discovery {
            link.publish(retained(Token::Greeting, topic, payload))?;
        }
        let filter = self.parts.topics.judge_filter();
        link.client
            .try_subscribe(&filter, QoS::ExactlyOnce)
            .map_err(|error| format!("{filter} cannot be subscribed to: {error}"))
    }

    /// Sends what the window allows; when the outbox is closed and drained (or out of time), the farewell.
    fn pump(&self, link: &mut Link) -> Result<(), String> {
        if link.phase != Phase::Open {
            return Ok(());
        }
        while link.unacknowledged() < WINDOW
            && let Some(publication) = self.parts.outbox.next()
        {
            link.publish(publication)?;
        }
        if let Some(closing) = self.parts.outbox.closing() {
            let drained = self.parts.outbox.is_empty();
            if drained || Instant::now() >= closing.drain_until() {
                link.publish(retained(Token::Farewell, &self.parts.status_topic, OFFLINE))?;
                link.phase = Phase::Leaving;
            }
        }
        Ok(())
    }

    /// `true`: we have said goodbye, and it has left.
    fn handle(&self, link: &mut Link, happening: &Happening) -> bool {
        match happening {
            // Requests are handled in their order, so the next packet id is the oldest submission's.
            Happening::Outgoing(Outgoing::Publish(id)) => {
                if let Some(token) = link.submitted.pop_front() {
                    link.in_flight.insert(*id, token);
                }
            }
            Happening::Incoming(Packet::PubAck(acknowledgement)) => {
                if let Some(token) = link.in_flight.remove(&acknowledgement.pkid) {
                    self.acknowledged(link, &token);
                }
            }
            Happening::Incoming(Packet::Publish(publish)) => {
                judge::ask(&self.parts.topics, publish, &self.parts.control)
            }
            Happening::Outgoing(Outgoing::Disconnect) => return true,
            _ => {}
        }
        false
    }

    fn acknowledged(&self, link: &mut Link, token: &Token) {
        if *token == Token::Farewell {
            link.phase = Phase::Left;
            // A full channel cannot be: it has room for the window and the greetings. Without DISCONNECT the broker
            // publishes the will, which says the same.
            let _ = link.client.try_disconnect();
        }
        if let Some(event) = self.parts.outbox.acknowledged(token) {
            self.parts.observer.delivered(&self.parts.action, &event);
        }
    }

    fn options(&self) -> Result<MqttOptions, String> {
        let plan = &self.parts.plan;
        // An IPv6 address needs brackets before the port; a certificate's name has none.
        let host = match plan.host.contains(':') && !plan.host.starts_with('[') && !plan.tls {
            true => format!("[{}]", plan.host),
            false => plan.host.clone(),
        };
        let mut options = MqttOptions::new(&self.parts.client_id, host, plan.port);
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_inflight(PACKET_IDS);
        options.set_max_packet_size(64 * 1024, 256 * 1024);
        options.set_last_will(LastWill::new(&self.parts.status_topic, OFFLINE, QoS::AtLeastOnce, true));
        if let Some((user, password)) = &plan.credentials {
            options.set_credentials(user, password.reveal());
        }
        if plan.tls {
            options.set_transport(tls::transport(plan.ca.as_deref())?);
        }
        Ok(options)
    }

    /// For people.
    fn address(&self) -> String {
        let plan = &self.parts.plan;
        format!("{}://{}:{}", if plan.tls { "mqtts" } else { "mqtt" }, plan.host, plan.port)
    }
}

/// One connection's publications on their way.
struct Link {
    client: AsyncClient,
    /// Given to rumqttc, which has not yet given them a packet id.
    submitted: VecDeque<Token>,
    /// By packet id.
    in_flight: HashMap<u16, Token>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Publishing.
    Open,
    /// `offline` is on its way.
    Leaving,
    /// `offline` is acknowledged, and DISCONNECT on its way.
    Left,
}

impl Link {
    fn publish(&mut self, publication: Publication) -> Result<(), String> {
        let Publication { token, topic, payload, retain } = publication;
        self.client
            .try_publish(&topic, QoS::AtLeastOnce, retain, payload)
            .map_err(|error| format!("{topic} cannot be published: {error}"))?;
        self.submitted.push_back(token);
        Ok(())
    }

    fn unacknowledged(&self) -> usize {
        self.submitted.len() + self.in_flight.len()
    }

    /// When the current phase of a close must be over.
    fn deadline(&self, closing: Closing) -> Instant {
        match self.phase {
            Phase::Open => closing.drain_until(),
            Phase::Leaving | Phase::Left => closing.deadline,
        }
    }
}

fn retained(token: Token, topic: &str, payload: &str) -> Publication {
    Publication { token, topic: topic.into(), payload: payload.into(), retain: true }
}

/// At `deadline`; never if there is none.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// What is wrong, whether waiting helps, and what to try.
fn explain(error: &ConnectionError) -> (Health, String) {
    match error {
        ConnectionError::ConnectionRefused(code) => explain_refusal(*code),
        ConnectionError::Tls(TlsError::Io(error)) | ConnectionError::Io(error) => explain_io(error),
        ConnectionError::Tls(error) => (Health::Rejected, format!("TLS: {error}")),
        ConnectionError::NetworkTimeout => (Health::Degraded, format!("no answer within {CONNECT_TIMEOUT_SECONDS} s")),
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            (Health::Degraded, "the broker closed the connection".into())
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            (Health::Degraded, "the broker has stopped answering".into())
        }
        other => (Health::Degraded, other.to_string()),
    }
}

fn explain_refusal(code: ConnectReturnCode) -> (Health, String) {
    let reason = match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "the broker refuses user and password; check them, and that the broker lets this user in"
        }
        ConnectReturnCode::BadClientId => "the broker refuses our client id; check its rules for client ids",
        ConnectReturnCode::RefusedProtocolVersion => "the broker does not speak MQTT 3.1.1",
        ConnectReturnCode::ServiceUnavailable => return (Health::Degraded, "the broker is not available yet".into()),
        ConnectReturnCode::Success => return (Health::Degraded, "the broker said yes and no".into()),
    };
    (Health::Rejected, reason.into())
}

fn explain_io(error: &std::io::Error) -> (Health, String) {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return (Health::Degraded, error.to_string());
    };
    match tls {
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => (Health::Degraded, format!("TLS: {tls}; is this board's clock right?")),
        rustls::Error::InvalidCertificate(_) => {
            (Health::Rejected, format!("TLS: {tls}; is the broker's name right, and its authority known (ca = …)?"))
        }
        _ => (Health::Degraded, format!("TLS: {tls}")),
    }
}
