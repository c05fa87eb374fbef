//! `type = "hook"`: a program of the user's own for each event, with the event's JSON (see [`payload`](super::payload))
//! on its standard input.
//!
//! Exit status 0 is success; anything else is counted and said. A program that runs longer than the time-out is killed
//! with its whole process group, and so is what a program leaves running behind it: otherwise "at most N at once" would
//! not hold. What a hook prints on its stderr goes to the daemon's own, which is the journal; its stdout goes nowhere.

use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::ActionError;
use super::outbox::{Outbox, Overflow, Taken};
use super::pins::Shared;
use super::runner::{self, ActionHandle, Health, StatusCell};
use crate::config::plan::HookPlan;
use crate::rules::Event;

/// How often a running program is looked at. A pidfd would wake us, but the Jetson Nano's kernel 4.9 has none.
const LOOK: Duration = Duration::from_millis(10);

/// What systemd tells its own child is not for a child of ours: it could feed the watchdog, or end the start-up.
const NOT_INHERITED: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

pub(super) fn spawn(name: Arc<str>, plan: &HookPlan, context: &Arc<Shared>) -> Result<ActionHandle, ActionError> {
    let outbox = Arc::new(Outbox::new(plan.queue, Overflow::Drop));
    let status = Arc::new(StatusCell::new(name.clone()));
    let hook = Hook {
        action: name.clone(),
        plan: plan.clone(),
        context: context.clone(),
        queue: outbox.clone(),
        status: status.clone(),
    };
    match hook.is_there() {
        true => status.set(Health::Ready, format!("runs {} for each event", hook.program())),
        false => status.set(Health::Rejected, hook.missing()),
    }
    runner::spawn(name, outbox, status, move || hook.work_in_parallel())
}

struct Hook {
    action: Arc<str>,
    plan: HookPlan,
    context: Arc<Shared>,
    queue: Arc<Outbox>,
    status: Arc<StatusCell>,
}

/// Why a run was no success.
struct Failure {
    health: Health,
    reason: String,
}

impl Hook {
    fn program(&self) -> &str {
        self.plan.command.first().map_or("", String::as_str)
    }

    fn missing(&self) -> String {
        format!("there is no program {}; install it, or correct `command` (a full path is safest)", self.program())
    }

    /// Whether there is such a file; whether it may be run is seen when it is.
    fn is_there(&self) -> bool {
        let program = self.program();
        match program.contains('/') {
            true => Path::new(program).is_file(),
            false => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join(program).is_file()),
        }
    }

    /// On this thread and as many more as may run at once.
    fn work_in_parallel(&self) {
        std::thread::scope(|scope| {
            for number in 1..self.plan.parallel {
                let thread = std::thread::Builder::new().name(format!("hook {} {number}", self.action));
                if let Err(error) = thread.spawn_scoped(scope, || self.work()) {
                    log::warn!(
                        "action \"{}\": {number} instead of {} at once: {error}",
                        self.action,
                        self.plan.parallel
                    );
                    break;
                }
            }
            self.work();
        });
    }

    fn work(&self) {
        let mut done = 0;
        while let Taken::Event(event) = self.queue.take_another(done) {
            // What is left at the deadline stays counted as left.
            if self.queue.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
            self.act(&event);
            done = 1;
        }
    }

    fn act(&self, event: &Event) {
        match self.run(&self.context.payload(event).to_json()) {
            Ok(()) => {
                self.status.set(Health::Ready, format!("runs {} for each event", self.program()));
                self.context.observer.delivered(&self.action, event);
            }
            Err(Failure { health, reason }) => {
                self.queue.count_lost();
                self.status.set(health, reason);
            }
        }
    }

    /// From the start of the program to its end, and that of all that it started.
    fn run(&self, json: &str) -> Result<(), Failure> {
        let failed = |health, reason| Failure { health, reason };
        let program = self.program();
        let input = input(json)
            .map_err(|error| failed(Health::Degraded, format!("preparing the input of {program} failed: {error}")))?;
        let mut command = Command::new(program);
        command.args(self.plan.command.iter().skip(1)).stdin(input).stdout(Stdio::null()).process_group(0);
        NOT_INHERITED.iter().for_each(|name| _ = command.env_remove(name));
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed(Health::Rejected, self.missing()),
            io::ErrorKind::PermissionDenied => failed(
                Health::Rejected,
                format!("{program} may not be run: {error}; chmod +x it, for the daemon's user"),
            ),
            _ => failed(Health::Degraded, format!("starting {program} failed: {error}")),
        })?;
        Group { child }.wait(Instant::now() + self.plan.timeout, &self.queue).map_err(|how| {
            let how = how.unwrap_or_else(|| format!("ran longer than {:?} and was killed", self.plan.timeout));
            failed(Health::Degraded, format!("{program} {how}; its event is counted as dropped"))
        })
    }
}

/// The JSON as a file in memory: unlike a pipe it never blocks us and never breaks, whatever the program does with it.
fn input(json: &str) -> io::Result<Stdio> {
    let memory = rustix::fs::memfd_create("spotter-event", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    writeln!(file, "{json}")?;
    file.rewind()?;
    Ok(file.into())
}

/// A program and its process group, whose number is the program's; dropped, nothing of it is left.
struct Group {
    child: Child,
}

impl Group {
    /// Waits for the program's end, at most until `until` or the deadline of a close.
    ///
    /// # Errors
    /// How it ended without success; `None` if it had to be killed.
    fn wait(self, until: Instant, queue: &Outbox) -> Result<(), Option<String>> {
        loop {
            if let Some(how) = self.exit() {
                return how.map_err(Some);
            }
            let until = queue.deadline().map_or(until, |deadline| until.min(deadline));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(None);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// How the program has ended, if it has. It stays a zombie, so that its number is given to nobody else.
    fn exit(&self) -> Option<Result<(), String>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.id()?), options).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(format!("ended with exit status {code}")),
            (None, Some(signal)) => Err(format!("was ended by signal {signal}")),
            (None, None) => Err("ended in an unknown way".to_owned()),
        })
    }

    fn id(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.id() {
            // The only failure is that nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[path = "hook_tests.rs"]
mod tests;
