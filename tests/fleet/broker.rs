//! A Mosquitto of our own that can die and come back.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Without persistence: a restart loses everything retained. Killed when dropped.
pub(crate) struct Broker {
    pub(crate) port: u16,
    config: PathBuf,
    process: Child,
}

impl Broker {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::with(folder, "broker", "allow_anonymous true\n")
    }

    /// With more lines of configuration, in a file of this name.
    pub(crate) fn with(folder: &Path, name: &str, lines: &str) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = folder.join(format!("{name}.conf"));
        // No limits on what waits for a subscriber: what is lost here was lost by the boards.
        let text = format!(
            "user root\npersistence false\nlog_dest none\nmax_queued_messages 0\nmax_inflight_messages 0\n\
             listener {port} 127.0.0.1\n{lines}"
        );
        std::fs::write(&config, text).unwrap();
        let process = launch(&config, port);
        Self { port, config, process }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.process = launch(&self.config, self.port);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(config: &Path, port: u16) -> Child {
    let program =
        ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(|path| Path::new(path).is_file());
    let mut process = Command::new(program.unwrap_or("mosquitto"))
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed: cross/packages.sh demo");
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(process.try_wait().unwrap().is_none(), "mosquitto ended by itself; is port {port} taken?");
        assert!(Instant::now() < until, "mosquitto does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}
