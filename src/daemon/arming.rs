//! Which rules are armed, across restarts: `armed.json` in the unit's state folder.
//!
//! A thread of its own writes it, because a card may take a second for it and the inference loop shall not wait; only the latest
//! state is written, and only if it differs from what the file holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::files::write_atomically;
use crate::rules::RuleSet;

const FILE: &str = "armed.json";
/// A larger file is none of ours.
const LARGEST: u64 = 1 << 20;

type Armed = BTreeMap<String, bool>;

/// Remembers which rules are armed.
pub(super) struct ArmingStore {
    /// What the file holds, with the rules of other configurations that are not in this one.
    armed: Armed,
    keeper: Option<Keeper>,
}

impl ArmingStore {
    /// Reads what an earlier run left under `folder` (`$STATE_DIRECTORY`). Without a folder nothing is remembered; `needed` says so
    /// in the log.
    pub(super) fn open(folder: Option<PathBuf>, needed: bool) -> Self {
        let Some(path) = folder.filter(|_| needed).map(|folder| folder.join(FILE)) else {
            if needed {
                log::warn!("STATE_DIRECTORY is not set: which rules are armed is forgotten at the end of this run");
            }
            return Self { armed: Armed::new(), keeper: None };
        };
        let armed = read(&path).unwrap_or_else(|problem| {
            log::error!("{}: {problem}; rules begin as configured (`armed`)", path.display());
            Armed::new()
        });
        let keeper =
            Keeper::start(path).inspect_err(|error| log::error!("what is armed is not remembered: {error}")).ok();
        Self { armed, keeper }
    }

    /// Arms `rules` as an earlier run left them.
    pub(super) fn recall(rules: &mut RuleSet) -> Self {
        let store = Self::open(folder(), rules.armed().next().is_some());
        store.apply(rules);
        store
    }

    /// Begins to remember, if `rules` are the first that want it.
    pub(super) fn need(&mut self, rules: &RuleSet) {
        if self.keeper.is_none() && self.armed.is_empty() && rules.armed().next().is_some() {
            *self = Self::open(folder(), true);
        }
    }

    /// Arms and disarms `rules` as remembered.
    pub(super) fn apply(&self, rules: &mut RuleSet) {
        let now = crate::clock::Monotonic::now();
        for (rule, &armed) in &self.armed {
            // A rule that is off has no event; one that is gone, or has no switch any more, is passed over.
            let _ = rules.arm(rule, armed, now);
        }
    }

    /// Remembers that `rule` is (dis)armed; the file follows if that is new.
    pub(super) fn note(&mut self, rule: &str, armed: bool) {
        if self.armed.insert(rule.to_owned(), armed) != Some(armed)
            && let Some(keeper) = &self.keeper
        {
            keeper.shared.lock().wanted = Some(self.armed.clone());
            keeper.shared.changed.notify_one();
        }
    }
}

/// The unit's state folder. systemd names several if a unit has several (systemd.exec(5)); ours has one.
fn folder() -> Option<PathBuf> {
    std::env::var_os("STATE_DIRECTORY").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn read(path: &Path) -> Result<Armed, String> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Armed::new()),
        Ok(metadata) if metadata.len() > LARGEST => return Err("is too large to be the list of armed rules".into()),
        _ => {}
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("is damaged: {error}"))
}

/// The thread that writes; what still waits when it is dropped is written first.
struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: Option<Armed>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next state to write; `None` at the end.
    fn next(&self) -> Option<Armed> {
        let idle = |state: &mut State| state.wanted.is_none() && !state.closed;
        self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner).wanted.take()
    }
}

impl Keeper {
    fn start(path: PathBuf) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let work = move || {
            while let Some(armed) = theirs.next() {
                let written = serde_json::to_vec_pretty(&armed).map_err(std::io::Error::from);
                if let Err(error) = written.and_then(|bytes| write_atomically(&path, &bytes)) {
                    log::error!("which rules are armed is not remembered: {error}");
                }
            }
        };
        let thread = std::thread::Builder::new().name("armed state".into()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in it has ended the process already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> ArmingStore {
        ArmingStore::open(Some(folder.to_owned()), true)
    }

    #[test]
    fn what_is_armed_survives_a_restart_and_the_file_is_written_on_change_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        drop(open(folder.path()));
        assert!(!path.exists(), "nothing has changed");
        let mut store = open(folder.path());
        for (rule, armed) in [("gate", false), ("cat", true), ("gate", true), ("gate", false)] {
            store.note(rule, armed);
        }
        drop(store);
        let expected = Armed::from([("cat".to_owned(), true), ("gate".to_owned(), false)]);
        assert_eq!(read(&path), Ok(expected.clone()));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, serde_json::to_vec(&expected).unwrap()).unwrap();
        let written = std::fs::read(&path).unwrap();
        let mut store = open(folder.path());
        store.note("gate", false);
        drop(store);
        assert_eq!(std::fs::read(&path).unwrap(), written, "the same state is not written again");
    }

    #[test]
    fn a_damaged_file_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for bytes in [&b"{\"gate\": tr"[..], b"\xff", b"[]"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(read(&path).is_err());
            let mut store = open(folder.path());
            assert!(store.armed.is_empty());
            store.note("gate", true);
            drop(store);
            assert_eq!(read(&path), Ok(Armed::from([("gate".to_owned(), true)])));
        }
    }
}
