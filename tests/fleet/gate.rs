//! The way from the boards to the broker: counts connections, and lets nobody through while the broker is away, so that a listener can be
//! in place before the boards are.

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Shut, it accepts and closes, as a load balancer does whose broker is dead.
pub(crate) struct Gate {
    pub(crate) port: u16,
    inside: Arc<Inside>,
}

struct Inside {
    open: AtomicBool,
    accepted: Mutex<Vec<Instant>>,
    running: Mutex<Vec<TcpStream>>,
}

/// Connections since some moment.
pub(crate) struct Storm {
    pub(crate) count: usize,
    /// The most in any one second.
    pub(crate) peak: usize,
}

impl Storm {
    /// A second, over `time`.
    pub(crate) fn rate(&self, time: Duration) -> f64 {
        self.count as f64 / time.as_secs_f64()
    }
}

impl Gate {
    pub(crate) fn before(broker: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inside = Inside { open: AtomicBool::new(true), accepted: Mutex::default(), running: Mutex::default() };
        let gate = Self { port, inside: Arc::new(inside) };
        let inside = gate.inside.clone();
        std::thread::spawn(move || {
            listener.incoming().map_while(Result::ok).for_each(|near| inside.admit(near, broker))
        });
        gate
    }

    pub(crate) fn open(&self) {
        self.inside.open.store(true, Ordering::SeqCst);
    }

    /// Ends what runs through it, too.
    pub(crate) fn shut(&self) {
        self.inside.open.store(false, Ordering::SeqCst);
        for stream in self.inside.running.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn storm(&self, since: Instant) -> Storm {
        let accepted = self.inside.accepted.lock().unwrap();
        let times: Vec<_> = accepted.iter().filter(|at| **at >= since).collect();
        let second =
            |from: &Instant| times.iter().filter(|at| (*from..*from + Duration::from_secs(1)).contains(**at)).count();
        Storm { count: times.len(), peak: times.iter().map(|from| second(from)).max().unwrap_or(0) }
    }
}

impl Inside {
    fn admit(&self, near: TcpStream, broker: u16) {
        self.accepted.lock().unwrap().push(Instant::now());
        if !self.open.load(Ordering::SeqCst) {
            return;
        }
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)) else { return };
        self.running.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
        forward(near.try_clone().unwrap(), far.try_clone().unwrap());
        forward(far, near);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
