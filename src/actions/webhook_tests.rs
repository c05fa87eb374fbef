use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Mutex;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::actions::payload::tests::event;
use crate::actions::{ActionContext, Edge, Message, Observer};
use crate::config::plan::Secret;
use crate::rules::Change;

#[derive(Default)]
struct Delivered(Mutex<Vec<String>>);

impl Observer for Delivered {
    fn edge(&self, _: &Edge) {}
    fn delivered(&self, _: &str, event: &Event) {
        self.0.lock().unwrap().push(event.rule.to_string());
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
struct Request {
    /// The request line and the headers, in small letters.
    head: String,
    json: serde_json::Value,
}

/// An HTTP server on the loopback interface that answers by a list, then with 200.
struct Receiver {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    fn start(answers: &[&str], tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (theirs, mut answers) =
            (seen.clone(), answers.iter().map(ToString::to_string).collect::<VecDeque<String>>());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let mut answer = || answers.pop_front().unwrap_or_else(|| "200 OK".into());
                match &tls {
                    None => serve(socket, &theirs, &mut answer),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls.clone()).unwrap();
                        serve(StreamOwned::new(connection, socket), &theirs, &mut answer);
                    }
                }
            }
        });
        Self { port, seen }
    }

    fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// One request, one answer, and the end of the connection. An answer `hang` never comes.
fn serve(stream: impl Read + Write, seen: &Mutex<Vec<Request>>, answer: &mut dyn FnMut() -> String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        // A refused certificate ends it before the first byte.
        if !matches!(reader.read_line(&mut head), Ok(count) if count > 0) {
            return;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    seen.lock().unwrap().push(Request { head, json: serde_json::from_slice(&body).unwrap() });
    match answer().as_str() {
        "hang" => std::thread::sleep(Duration::from_secs(2)),
        status => {
            let _ = write!(reader.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = reader.get_mut().flush();
        }
    }
}

fn plan(url: String) -> WebhookPlan {
    let timeout = Duration::from_secs(10);
    WebhookPlan { url: Secret::new(url), token: None, ca: None, timeout, retries: 3, queue: 8 }
}

fn start(plan: &WebhookPlan) -> (ActionHandle, Arc<Delivered>) {
    let delivered = Arc::new(Delivered::default());
    let context = ActionContext {
        device: "garden".into(),
        rules: vec![],
        cameras: vec![],
        views: vec![],
        pins: vec![],
        observer: delivered.clone(),
        control: crate::control::Control::new(|| ()),
    };
    (spawn("hook".into(), plan, &Shared::new(context, &[])).unwrap(), delivered)
}

fn send(handle: &ActionHandle, rule: &str) -> bool {
    handle.send(Message::Event(Arc::new(event(rule, Change::On))))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_events_json_is_posted() {
    let receiver = Receiver::start(&[], None);
    let mut plan = plan(format!("http://127.0.0.1:{}/api/secret?x=1", receiver.port));
    plan.token = Some(Secret::new("t0ken".into()));
    let (handle, delivered) = start(&plan);
    send(&handle, "cat");
    send(&handle, "dog");
    wait_until("both are posted", || handle.depth() == 0);
    let requests = receiver.requests();
    assert_eq!(requests.iter().map(|one| one.json["rule"].clone()).collect::<Vec<_>>(), ["cat", "dog"]);
    let (head, json) = (&requests[0].head, &requests[0].json);
    assert!(head.starts_with("post /api/secret?x=1 http/1.1\r\n"), "{head}");
    for header in ["content-type: application/json\r\n", "authorization: bearer t0ken\r\n", "user-agent: spotter/"] {
        assert!(head.contains(header), "{head}");
    }
    assert!(head.contains(&format!("idempotency-key: {}\r\n", json["id"].as_str().unwrap())), "{head}");
    assert_eq!((&json["device"], &json["label"]), (&"garden".into(), &"wild_cat".into()));
    assert_eq!((handle.status().health, handle.dropped()), (Health::Ready, 0));
    assert!(!handle.status().detail.contains("secret"), "{:?}", handle.status());
    assert_eq!(*delivered.0.lock().unwrap(), ["cat", "dog"]);
}

#[test]
fn what_may_pass_is_tried_again_with_the_same_id_and_order_is_kept() {
    let receiver = Receiver::start(&["503 Service Unavailable", "429 Too Many Requests"], None);
    let (handle, delivered) = start(&plan(format!("http://127.0.0.1:{}/", receiver.port)));
    send(&handle, "cat");
    send(&handle, "dog");
    wait_until("both are posted", || handle.depth() == 0);
    let requests = receiver.requests();
    let rules: Vec<_> = requests.iter().map(|one| one.json["rule"].clone()).collect();
    assert_eq!(rules, ["cat", "cat", "cat", "dog"]);
    assert_eq!((&requests[0].json, &requests[1].json), (&requests[1].json, &requests[2].json));
    assert_eq!((handle.dropped(), handle.status().health), (0, Health::Ready));
    assert_eq!(delivered.0.lock().unwrap().len(), 2);
}

#[test]
fn a_refusal_is_not_repeated() {
    for (answer, hint) in [("401 Unauthorized", "token"), ("404 Not Found", "url"), ("301 Moved", "leads to")] {
        let receiver = Receiver::start(&[answer], None);
        let (handle, _) = start(&plan(format!("http://127.0.0.1:{}/path", receiver.port)));
        send(&handle, "cat");
        wait_until("it is given up", || handle.depth() == 0);
        let status = handle.status();
        assert_eq!((status.health, handle.dropped(), receiver.requests().len()), (Health::Rejected, 1, 1), "{answer}");
        assert!(status.detail.contains(&answer[..3]) && status.detail.contains(hint), "{}", status.detail);
        send(&handle, "dog");
        wait_until("the next one goes through", || handle.status().health == Health::Ready);
    }
}

#[test]
fn after_its_attempts_an_event_is_given_up_and_counted() {
    let receiver = Receiver::start(&["500 Oops", "hang"], None);
    let mut plan = plan(format!("http://127.0.0.1:{}/", receiver.port));
    (plan.retries, plan.timeout) = (1, Duration::from_millis(300));
    let (handle, delivered) = start(&plan);
    send(&handle, "cat");
    wait_until("it is given up", || handle.depth() == 0);
    assert_eq!((handle.dropped(), receiver.requests().len()), (1, 2));
    assert!(handle.status().detail.contains("no answer in time; the event is given up"), "{:?}", handle.status());
    assert_eq!(delivered.0.lock().unwrap().len(), 0);
}

#[test]
fn an_absent_server_holds_up_neither_send_nor_close_and_drops_are_counted() {
    // Bound and closed: nobody listens there.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut plan = plan(format!("http://127.0.0.1:{port}/"));
    plan.retries = 100;
    let (handle, _) = start(&plan);
    send(&handle, "first");
    wait_until("the first one is tried", || handle.status().health == Health::Degraded);
    let kept = (0..20).filter(|_| send(&handle, "cat")).count();
    assert_eq!((kept, handle.dropped(), handle.depth()), (8, 12, 9));
    assert!(handle.close(Duration::from_millis(200)), "ended in time");
    assert_eq!(handle.depth(), 9, "left behind, and not counted as dropped");
}

#[test]
fn tls_works_with_the_right_authority_and_names_the_wrong_one() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[], Some(certificates(folder.path())));
    let mut plan = plan(format!("https://localhost:{}/", receiver.port));
    plan.ca = Some(folder.path().join("ca.pem"));
    let (trusted, _) = start(&plan);
    send(&trusted, "cat");
    wait_until("it is posted", || trusted.depth() == 0);
    assert_eq!((trusted.dropped(), receiver.requests().len()), (0, 1));
    for (file, words) in [("stranger.pem", "its authority known"), ("missing.pem", "missing.pem (ca = …) cannot")] {
        plan.ca = Some(folder.path().join(file));
        let (handle, _) = start(&plan);
        send(&handle, "cat");
        wait_until("rejected", || handle.status().health == Health::Rejected);
        assert!(handle.status().detail.contains(words), "{:?}", handle.status());
    }
    assert_eq!(receiver.requests().len(), 1);
}

/// An authority, one that is a stranger, and a server's certificate for localhost, made by openssl.
fn certificates(folder: &Path) -> Arc<ServerConfig> {
    let script = "set -e; cd $0; curve='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        for name in ca stranger; do openssl req -x509 $curve -days 2 -keyout $name.key -out $name.pem -subj /CN=$name; done
        printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > san
        openssl req $curve -keyout server.key -out server.csr -subj /CN=localhost
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem";
    let made = std::process::Command::new("sh").args(["-c", script]).arg(folder).output().unwrap();
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).unwrap())
}

#[test]
fn what_is_shown_of_an_address_ends_before_its_path() {
    for (url, shown) in [("http://h", "http://h"), ("https://h:1/a", "https://h:1"), ("http://h?a", "http://h")] {
        assert_eq!(server(url), shown);
    }
}
