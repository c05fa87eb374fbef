//! The two protocol versions behind one face: rumqttc has a client for each, alike and of different types.

use std::time::Duration;

use rumqttc::{
    ConnectReturnCode, ConnectionError, Event, LastWill, MqttOptions, NetworkOptions, Outgoing, Packet, QoS,
    StateError, TlsError, Transport, v5,
};

use super::outbox::Publication;
use crate::actions::runner::Health;
use crate::actions::tls as certificates;
use crate::config::plan::{MqttVersion, Secret};

/// For name, TCP, TLS and MQTT together.
const CONNECT_TIMEOUT_SECONDS: u64 = 5;

/// A broker that dies without a word is noticed after at most twice this long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// rumqttc's own limit, and its range of packet ids: well above the session's window, so that ids do not collide.
const PACKET_IDS: u16 = 512;

/// The largest packets that come in and go out, in bytes.
pub(super) const LARGEST: (usize, usize) = (64 * 1024, 256 * 1024);

/// What a connection is made of.
pub(super) struct Address<'a> {
    pub(super) version: MqttVersion,
    pub(super) client_id: &'a str,
    /// With brackets if an IPv6 address needs them.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) transport: Option<Transport>,
    pub(super) credentials: Option<&'a (String, Secret)>,
    /// Topic and payload of the last will, retained.
    pub(super) will: (&'a str, &'static str),
}

/// What happens on a connection, as far as a session cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The oldest submitted publication has left, with this packet id.
    Sent(u16),
    /// The broker has the publication of this id; or does not want it, and why.
    Acknowledged(u16, Option<String>),
    /// A message on a topic that we subscribed to.
    Heard(Heard),
    /// Our DISCONNECT has left.
    Disconnected,
    /// Anything else.
    Other,
}

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    /// It was published before we subscribed.
    pub(super) retained: bool,
}

/// Whether waiting helps, and what is wrong and what to try.
pub(super) type Failure = (Health, String);

/// The end that publications are put into.
pub(super) enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The end that must be polled for anything to happen.
pub(super) enum EventLoop {
    V3(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// A client with room for `capacity` publications that are not yet on their way. It connects when it is first polled.
pub(super) fn client(address: Address<'_>, capacity: usize) -> (Client, EventLoop) {
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(CONNECT_TIMEOUT_SECONDS).set_tcp_nodelay(true);
    match address.version {
        MqttVersion::V311 => {
            let (client, mut events) = rumqttc::AsyncClient::new(options(address), capacity);
            events.set_network_options(network);
            (Client::V3(client), EventLoop::V3(Box::new(events)))
        }
        MqttVersion::V5 => {
            let mut options = options_of_v5(address);
            options.set_network_options(network);
            let (client, events) = v5::AsyncClient::new(options, capacity);
            (Client::V5(client), EventLoop::V5(Box::new(events)))
        }
    }
}

fn options(address: Address<'_>) -> MqttOptions {
    let mut options = MqttOptions::new(address.client_id, address.host, address.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_inflight(PACKET_IDS);
    options.set_max_packet_size(LARGEST.0, LARGEST.1);
    options.set_last_will(LastWill::new(address.will.0, address.will.1, QoS::AtLeastOnce, true));
    if let Some((user, password)) = address.credentials {
        options.set_credentials(user, password.reveal());
    }
    if let Some(transport) = address.transport {
        options.set_transport(transport);
    }
    options
}

fn options_of_v5(address: Address<'_>) -> v5::MqttOptions {
    let will =
        v5::mqttbytes::v5::LastWill::new(address.will.0, address.will.1, v5::mqttbytes::QoS::AtLeastOnce, true, None);
    let mut options = v5::MqttOptions::new(address.client_id, address.host, address.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_start(true).set_outgoing_inflight_upper_limit(PACKET_IDS);
    options.set_connection_timeout(CONNECT_TIMEOUT_SECONDS);
    options.set_max_packet_size(u32::try_from(LARGEST.0).ok()).set_last_will(will);
    if let Some((user, password)) = address.credentials {
        options.set_credentials(user, password.reveal());
    }
    if let Some(transport) = address.transport {
        options.set_transport(transport);
    }
    options
}

impl Client {
    /// At QoS 1; never waits.
    pub(super) fn publish(&self, publication: &Publication) -> Result<(), String> {
        let Publication { topic, payload, retain, .. } = publication;
        let (topic, payload) = (topic.as_str(), payload.clone());
        let published = match self {
            Self::V3(client) => {
                client.try_publish(topic, QoS::AtLeastOnce, *retain, payload).map_err(|error| error.to_string())
            }
            Self::V5(client) => client
                .try_publish(topic, v5::mqttbytes::QoS::AtLeastOnce, *retain, payload)
                .map_err(|error| error.to_string()),
        };
        published.map_err(|error| format!("{topic} cannot be published: {error}"))
    }

    /// Never waits.
    pub(super) fn subscribe(&self, filter: &str, qos: QoS) -> Result<(), String> {
        let qos_of_v5 = match qos {
            QoS::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
            QoS::AtLeastOnce => v5::mqttbytes::QoS::AtLeastOnce,
            QoS::ExactlyOnce => v5::mqttbytes::QoS::ExactlyOnce,
        };
        let asked = match self {
            Self::V3(client) => client.try_subscribe(filter, qos).map_err(|error| error.to_string()),
            Self::V5(client) => client.try_subscribe(filter, qos_of_v5).map_err(|error| error.to_string()),
        };
        asked.map_err(|error| format!("{filter} cannot be subscribed to: {error}"))
    }

    /// Never waits.
    pub(super) fn unsubscribe(&self, filter: &str) -> Result<(), String> {
        let asked = match self {
            Self::V3(client) => client.try_unsubscribe(filter).map_err(|error| error.to_string()),
            Self::V5(client) => client.try_unsubscribe(filter).map_err(|error| error.to_string()),
        };
        asked.map_err(|error| format!("{filter} cannot be unsubscribed from: {error}"))
    }

    /// Asks for a DISCONNECT. It cannot fail while there is room for the publications; without it the broker publishes the
    /// will, which says the same as the farewell.
    pub(super) fn disconnect(&self) {
        let _ = match self {
            Self::V3(client) => client.try_disconnect().map_err(|error| error.to_string()),
            Self::V5(client) => client.try_disconnect().map_err(|error| error.to_string()),
        };
    }
}

impl EventLoop {
    /// The next thing that happens. The future must be polled to its end: dropped halfway, rumqttc can lose a packet.
    pub(super) async fn poll(&mut self) -> Result<Step, Failure> {
        match self {
            Self::V3(events) => events.poll().await.map(|event| step(&event)).map_err(|error| explain(&error)),
            Self::V5(events) => events.poll().await.map(|event| step_of_v5(&event)).map_err(|error| explain_v5(&error)),
        }
    }

    /// What arrived together with the end.
    pub(super) fn rest(&mut self) -> Vec<Step> {
        match self {
            Self::V3(events) => std::mem::take(&mut events.state.events).iter().map(step).collect(),
            Self::V5(events) => std::mem::take(&mut events.state.events).iter().map(step_of_v5).collect(),
        }
    }
}

fn step(event: &Event) -> Step {
    match event {
        Event::Outgoing(Outgoing::Publish(id)) => Step::Sent(*id),
        Event::Incoming(Packet::PubAck(acknowledgement)) => Step::Acknowledged(acknowledgement.pkid, None),
        Event::Incoming(Packet::Publish(message)) => Step::Heard(Heard {
            topic: message.topic.clone(),
            payload: message.payload.to_vec(),
            retained: message.retain,
        }),
        Event::Outgoing(Outgoing::Disconnect) => Step::Disconnected,
        _ => Step::Other,
    }
}

fn step_of_v5(event: &v5::Event) -> Step {
    use v5::mqttbytes::v5::{Packet, PubAckReason};
    match event {
        v5::Event::Outgoing(Outgoing::Publish(id)) => Step::Sent(*id),
        v5::Event::Incoming(Packet::PubAck(acknowledgement)) => {
            let refusal = match acknowledgement.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                reason => Some(format!("{reason:?}")),
            };
            Step::Acknowledged(acknowledgement.pkid, refusal)
        }
        v5::Event::Incoming(Packet::Publish(message)) => Step::Heard(Heard {
            // A topic that is no text is none of ours.
            topic: String::from_utf8_lossy(&message.topic).into_owned(),
            payload: message.payload.to_vec(),
            retained: message.retain,
        }),
        v5::Event::Outgoing(Outgoing::Disconnect) => Step::Disconnected,
        _ => Step::Other,
    }
}

const CREDENTIALS: &str = "the broker refuses user and password; check them, and that the broker lets this user in";
const CLIENT_ID: &str = "the broker refuses our client id; check its rules for client ids";
const CLOSED: &str = "the broker closed the connection";
const SILENT: &str = "the broker has stopped answering";

fn explain(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::ConnectionRefused(code) => explain_refusal(*code),
        ConnectionError::Tls(TlsError::Io(error)) | ConnectionError::Io(error) => explain_io(error),
        ConnectionError::Tls(error) => (Health::Rejected, format!("TLS: {error}")),
        ConnectionError::NetworkTimeout => no_answer(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => (Health::Degraded, CLOSED.into()),
        ConnectionError::MqttState(StateError::AwaitPingResp) => (Health::Degraded, SILENT.into()),
        other => (Health::Degraded, other.to_string()),
    }
}

fn explain_refusal(code: ConnectReturnCode) -> Failure {
    let reason = match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => CREDENTIALS,
        ConnectReturnCode::BadClientId => CLIENT_ID,
        ConnectReturnCode::RefusedProtocolVersion => "the broker does not speak MQTT 3.1.1; try `version = \"5\"`",
        ConnectReturnCode::ServiceUnavailable => return (Health::Degraded, "the broker is not available yet".into()),
        ConnectReturnCode::Success => return (Health::Degraded, "the broker said yes and no".into()),
    };
    (Health::Rejected, reason.into())
}

fn explain_v5(error: &v5::ConnectionError) -> Failure {
    use v5::{ConnectionError, StateError};
    match error {
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => explain_refusal_of_v5(*code),
        ConnectionError::Tls(TlsError::Io(error)) | ConnectionError::Io(error) => explain_io(error),
        ConnectionError::Tls(error) => (Health::Rejected, format!("TLS: {error}")),
        ConnectionError::Timeout(_) => no_answer(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => (Health::Degraded, CLOSED.into()),
        ConnectionError::MqttState(StateError::AwaitPingResp) => (Health::Degraded, SILENT.into()),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let words = reason_string.as_ref().map_or(String::new(), |words| format!(" ({words})"));
            (Health::Degraded, format!("the broker ended the connection: {reason_code:?}{words}"))
        }
        ConnectionError::MqttState(StateError::Io(error)) => explain_io(error),
        ConnectionError::MqttState(StateError::Deserialization(v5::mqttbytes::Error::Io(error))) => explain_io(error),
        ConnectionError::NotConnAck(_) | ConnectionError::MqttState(StateError::Deserialization(_)) => {
            (Health::Degraded, format!("{error}; does the broker speak MQTT 5? If not, write `version = \"3.1.1\"`"))
        }
        other => (Health::Degraded, other.to_string()),
    }
}

fn explain_refusal_of_v5(code: v5::mqttbytes::v5::ConnectReturnCode) -> Failure {
    use v5::mqttbytes::v5::ConnectReturnCode::{
        BadAuthenticationMethod, BadClientId, BadUserNamePassword, Banned, ClientIdentifierNotValid, NotAuthorized,
        RefusedProtocolVersion, UnsupportedProtocolVersion,
    };
    let reason = match code {
        BadUserNamePassword | NotAuthorized | BadAuthenticationMethod => CREDENTIALS,
        BadClientId | ClientIdentifierNotValid => CLIENT_ID,
        Banned => "the broker has banned this client; ask who runs it",
        RefusedProtocolVersion | UnsupportedProtocolVersion => {
            "the broker does not speak MQTT 5; write `version = \"3.1.1\"`"
        }
        other => return (Health::Degraded, format!("the broker does not let us in: {other:?}")),
    };
    (Health::Rejected, reason.into())
}

fn no_answer() -> Failure {
    (Health::Degraded, format!("no answer within {CONNECT_TIMEOUT_SECONDS} s"))
}

fn explain_io(error: &std::io::Error) -> Failure {
    match certificates::within(error) {
        Some(error) => certificates::explain(error),
        None => (Health::Degraded, error.to_string()),
    }
}
