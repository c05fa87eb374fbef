//! The connection to one broker: made, served, lost, and made again, until the outbox is closed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::QoS;

use super::commands::Commands;
use super::outbox::{Closing, MqttOutbox, Publication, Token};
use super::topics::Topics;
use super::wire::{self, Address, Client, EventLoop, Failure, Heard, Step};
use super::{OFFLINE, ONLINE, judge, tls};
use crate::actions::runner::{Health, Mailbox, StatusCell};
use crate::actions::{Observer, fnv1a};
use crate::backoff::Backoff;
use crate::config::plan::MqttPlan;
use crate::control::Control;

/// How many publications may be unacknowledged at once.
const WINDOW: usize = 32;

/// The broker is away: soon, then every few seconds, so that `online` is back within five seconds of the broker.
const ABSENT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(4));

/// The broker refuses: somebody must change something first.
const REFUSED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// A connection that has lasted this long is a good one: the next loss starts the back-off anew.
const STABLE: Duration = Duration::from_secs(10);

/// After so many short connections in a row, somebody else is likely to use our client id.
const SUSPICIOUS: u32 = 3;

/// How long an exit with an empty outbox tries to reach the broker for its `offline`.
const LAST_TRY: Duration = Duration::from_secs(1);

/// What a session is made of.
pub(super) struct Parts {
    pub(super) action: Arc<str>,
    pub(super) client_id: String,
    pub(super) plan: MqttPlan,
    pub(super) status_topic: String,
    pub(super) topics: Topics,
    pub(super) control: Arc<Control>,
    pub(super) outbox: Arc<MqttOutbox>,
    pub(super) commands: Arc<Commands>,
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
    Lost(Health, String),
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
                End::Lost(health, reason) => self.note_lost(health, &reason),
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

    fn note_lost(&mut self, health: Health, reason: &str) -> Duration {
        let hint = match self.short >= SUSPICIOUS {
            true => format!("; does another client use the id {}?", self.parts.client_id),
            false => String::new(),
        };
        self.parts.status.set(health, format!("{}: {reason}{hint}; trying again", self.address()));
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
        let (client, mut eventloop) = match self.wire() {
            Ok(address) => wire::client(address, WINDOW + 8),
            Err(reason) => return End::Unconnected(Health::Rejected, reason),
        };
        match self.poll_until_closed(&mut eventloop).await {
            None => return End::Closed,
            Some(Err((health, reason))) => return End::Unconnected(health, reason),
            Some(Ok(_connack)) => {}
        }
        self.parts.outbox.connected();
        if self.short < SUSPICIOUS {
            self.set_ready();
        }
        self.refused.reset();
        let link =
            Link { client, submitted: VecDeque::new(), in_flight: HashMap::new(), phase: Phase::Open, refusal: None };
        self.serve(eventloop, link).await
    }

    /// The next thing that happens; `None` when the outbox is closed and its deadline has passed.
    async fn poll_until_closed(&self, eventloop: &mut EventLoop) -> Option<Result<Step, Failure>> {
        let poll = eventloop.poll();
        tokio::pin!(poll);
        loop {
            let deadline = self.parts.outbox.closing().map(|closing| self.connect_until(closing));
            tokio::select! {
                step = &mut poll => return Some(step),
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
            return End::Lost(Health::Degraded, reason);
        }
        loop {
            let step = {
                // The future of a poll is kept until it is done: dropped halfway, rumqttc can lose a packet.
                let poll = eventloop.poll();
                tokio::pin!(poll);
                loop {
                    if let Err(reason) = self.pump(&mut link) {
                        return End::Lost(Health::Degraded, reason);
                    }
                    let closing = self.parts.outbox.closing();
                    let timer = closing.map(|closing| link.deadline(closing));
                    if link.phase != Phase::Open && timer.is_some_and(|timer| Instant::now() >= timer) {
                        return End::Closed;
                    }
                    tokio::select! {
                        step = &mut poll => break step,
                        () = self.parts.outbox.changed() => {}
                        () = sleep_until(timer) => {}
                        () = sleep_until(self.parts.outbox.due()) => {}
                        () = sleep_until(stable_at) => {
                            stable_at = None;
                            self.settle();
                        }
                    }
                }
            };
            match step {
                Ok(step) => {
                    if self.handle(&mut link, step) {
                        return End::Closed;
                    }
                }
                Err((_, reason)) => {
                    // Acknowledgements among them save a second sending.
                    for step in eventloop.rest() {
                        self.handle(&mut link, step);
                    }
                    return self.lost(&reason, began.elapsed(), link);
                }
            }
        }
    }

    fn lost(&mut self, reason: &str, lived: Duration, link: Link) -> End {
        if link.phase == Phase::Left {
            return End::Closed;
        }
        self.short = if lived < STABLE { self.short.saturating_add(1) } else { 0 };
        let reason = format!("the connection was lost after {:.1} s: {reason}", lived.as_secs_f64());
        match link.refusal {
            // Some brokers (Mosquitto 2.0) close after a refusal, which is then what explains the loss.
            Some(refusal) => End::Lost(Health::Rejected, format!("{refusal}; {reason}")),
            None => End::Lost(Health::Degraded, reason),
        }
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

    /// The birth before anything else. Discovery and states follow from the outbox.
    fn greet(&self, link: &mut Link) -> Result<(), String> {
        link.publish(retained(Token::Greeting, &self.parts.status_topic, ONLINE))?;
        link.client.subscribe(&self.parts.commands.filter(), QoS::AtLeastOnce)?;
        // A part is judged once.
        link.client.subscribe(&self.parts.topics.judge_filter(), QoS::ExactlyOnce)
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

    /// A message on one of our subscriptions: a station's, or a rule's.
    fn hear(&self, message: &Heard) {
        let Parts { topics, control, commands, outbox, .. } = &self.parts;
        let asked = judge::ask(topics, message, control);
        if !asked && !commands.take(&message.topic, &message.payload, message.retained) {
            outbox.count_refused();
        }
    }

    /// `true`: we have said goodbye, and it has left.
    fn handle(&self, link: &mut Link, step: Step) -> bool {
        match step {
            // Requests are handled in their order, so the next packet id is the oldest submission's.
            Step::Sent(id) => {
                if let Some(token) = link.submitted.pop_front() {
                    link.in_flight.insert(id, token);
                }
            }
            Step::Acknowledged(id, refusal) => {
                if let Some(token) = link.in_flight.remove(&id) {
                    self.acknowledged(link, &token, refusal);
                }
            }
            Step::Heard(message) => self.hear(&message),
            Step::Disconnected => return true,
            Step::Other => {}
        }
        false
    }

    fn acknowledged(&self, link: &mut Link, token: &Token, refusal: Option<String>) {
        if *token == Token::Farewell {
            link.phase = Phase::Left;
            link.client.disconnect();
        }
        match (refusal, self.parts.outbox.acknowledged(token)) {
            (None, Some(event)) => self.parts.observer.delivered(&self.parts.action, &event),
            (None, None) => {}
            (Some(reason), event) => {
                if event.is_some() {
                    self.parts.outbox.count_lost();
                }
                let reason = format!("the broker does not take our messages: {reason}; check its access list");
                self.parts.status.set(Health::Rejected, format!("{}: {reason}", self.address()));
                link.refusal = Some(reason);
            }
        }
    }

    fn wire(&self) -> Result<Address<'_>, String> {
        let plan = &self.parts.plan;
        // An IPv6 address needs brackets before the port; a certificate's name has none.
        let host = match plan.host.contains(':') && !plan.host.starts_with('[') && !plan.tls {
            true => format!("[{}]", plan.host),
            false => plan.host.clone(),
        };
        Ok(Address {
            version: plan.version,
            client_id: &self.parts.client_id,
            host,
            port: plan.port,
            transport: plan.tls.then(|| tls::transport(plan.ca.as_deref())).transpose()?,
            credentials: plan.credentials.as_ref(),
            will: (&self.parts.status_topic, OFFLINE),
        })
    }

    /// For people.
    fn address(&self) -> String {
        let plan = &self.parts.plan;
        format!("{}://{}:{}", if plan.tls { "mqtts" } else { "mqtt" }, plan.host, plan.port)
    }
}

/// One connection's publications on their way.
struct Link {
    client: Client,
    /// Given to rumqttc, which has not yet given them a packet id.
    submitted: VecDeque<Token>,
    /// By packet id.
    in_flight: HashMap<u16, Token>,
    phase: Phase,
    /// Why the broker did not take the last message that it did not take.
    refusal: Option<String>,
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
        self.client.publish(&publication)?;
        self.submitted.push_back(publication.token);
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
