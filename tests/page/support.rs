//! A daemon with a page on a port of its own, and a small HTTP client beside it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a debug build under load; nothing waits for it unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TOKEN: &str = "test-token-0123456789";

/// The running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) host: String,
    folder: tempfile::TempDir,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Daemon {
    /// The demo's photos as a camera, its rules, a simulated pin, and `[page]` with these lines.
    pub(crate) fn start(page: &str) -> Self {
        Self::run(|_| Self::demo(page))
    }

    /// What [`start`](Self::start) starts.
    pub(crate) fn demo(page: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        format!(
            "[device]\nname = \"garden\"\n[model]\npath = {:?}\nthreads = 1\n\
             [[camera]]\nname = \"feeder\"\nfiles = {:?}\nrepeat = true\nfps = 8\n\
             [[rule]]\nname = \"cat\"\nclasses = [\"wild_cat\", \"cougar_*\", \"leopards\"]\nactions = [\"siren\"]\n\
             [[rule]]\nname = \"vehicle\"\nclasses = [\"airplanes\", \"motorbikes\", \"car_side\"]\nhits = 2\nwindow = 2\nactions = [\"lamp\"]\n\
             [action.siren]\ntype = \"gpio\"\nbackend = \"simulated\"\nline = 17\nmode = \"pulse\"\n\
             [action.lamp]\ntype = \"gpio\"\nbackend = \"simulated\"\nline = 27\n\
             [action.spare]\ntype = \"gpio\"\nbackend = \"simulated\"\nline = 5\n\
             [page]\nlisten = \"127.0.0.1:0\"\n{page}\n",
            root.join("models/vgg16-gap-caltech101.onnx"),
            root.join("tests/photos"),
        )
    }

    /// With the configuration that `text` makes of the folder that it will lie in.
    pub(crate) fn run(text: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("spotter.toml");
        std::fs::write(&config, text(folder.path())).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_spotter"))
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .args(["run", "--config"])
            .arg(&config)
            .env("STATE_DIRECTORY", folder.path())
            .env("RUST_LOG", "spotter=info")
            .env_remove("JOURNAL_STREAM")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("page: http://")?;
            Some(address.trim_end_matches('/').to_owned())
        });
        // The rest is read on, so that the daemon never waits for its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, host: host.expect("the daemon says where its page is"), folder }
    }

    /// Of a file beside the configuration.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another configuration; nobody has told the daemon yet.
    pub(crate) fn rewrite(&self, text: &str) {
        std::fs::write(self.path("spotter.toml"), text).unwrap();
    }

    /// One request as written here; `Host` and `Connection: close` are added.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.request_as(&self.host, method, path, headers, body)
    }

    /// The same under another name.
    pub(crate) fn request_as(&self, host: &str, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n");
        // A daemon that refuses may close before it has read everything.
        let _ = stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes());
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", "")
    }

    /// Asks again until `wanted`.
    pub(crate) fn wait_for(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{path}: {} {}", answer.head, answer.body);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
