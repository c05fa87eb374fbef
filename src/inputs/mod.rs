//! GPIO lines that are listened to: a light barrier, a switch, a PLC's output.
//!
//! Each has a thread that waits for the kernel's edge events, with the kernel's time stamps, and calls its listener. A line that
//! cannot be had is asked for again with back-off; other inputs do not wait for it.
//!
//! | module | what it is |
//! |---|---|
//! | `chardev` | the kernel's character device |
//! | [`simulated`] | a chip in memory whose lines a test sets, or that beat by themselves |

mod chardev;
pub mod simulated;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::actions::gpio::GpioError;
use crate::backoff::Backoff;
use crate::clock::Monotonic;
use crate::config::plan::{GpioBackend, InputPlan};

/// How soon, and at last how often, a line that could not be had is asked for again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The longest wait without a look at the stop flag.
const STEP: Duration = Duration::from_millis(100);

/// What happened on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The line's state.
    pub active: bool,
    /// When it took it: the kernel's stamp of the edge.
    pub at: Monotonic,
    /// It became active after it had been quiet for long enough. Not what was found at the opening, and not a bounce.
    pub counts: bool,
}

/// One line, open.
trait Input: Send {
    /// The line's state.
    fn active(&mut self) -> Result<bool, GpioError>;
    /// The next change and its time; `None` after `timeout`.
    fn next(&mut self, timeout: Duration) -> Result<Option<(bool, Monotonic)>, GpioError>;
    /// For people.
    fn describe(&self) -> String;
}

/// A line and who listens to it, called on the line's thread; it must return quickly.
pub struct Listener {
    /// The line.
    pub plan: InputPlan,
    /// Who.
    pub hear: Box<dyn FnMut(Heard) + Send>,
}

/// The threads of all inputs.
pub struct Inputs {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    healthy: Vec<Arc<AtomicBool>>,
}

impl Inputs {
    /// Starts a thread a line.
    ///
    /// # Errors
    /// The system gave no thread; those that were started end.
    pub fn start(listeners: Vec<Listener>) -> std::io::Result<Self> {
        let mut inputs = Self::none();
        for listener in listeners {
            let (stop, healthy) = (inputs.stop.clone(), Arc::new(AtomicBool::new(true)));
            inputs.healthy.push(healthy.clone());
            let thread = std::thread::Builder::new().name(format!("input {}", listener.plan.name));
            inputs.threads.push(thread.spawn(move || Watcher::new(listener, stop, healthy).run())?);
        }
        Ok(inputs)
    }

    /// No line at all.
    pub fn none() -> Self {
        Self { stop: Arc::default(), threads: Vec::new(), healthy: Vec::new() }
    }

    /// Every line is listened to.
    pub fn healthy(&self) -> bool {
        self.healthy.iter().all(|healthy| healthy.load(Ordering::Relaxed))
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // A panic in one has ended the process already.
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

/// One line's thread.
struct Watcher {
    listener: Listener,
    stop: Arc<AtomicBool>,
    healthy: Arc<AtomicBool>,
    debounce: Debounce,
    complained: bool,
}

impl Watcher {
    fn new(listener: Listener, stop: Arc<AtomicBool>, healthy: Arc<AtomicBool>) -> Self {
        let debounce = Debounce::new(listener.plan.debounce);
        Self { listener, stop, healthy, debounce, complained: false }
    }

    fn run(mut self) {
        let seed = self.listener.plan.name.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte));
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, seed);
        while !self.stopping() {
            if let Err(error) = self.listen(&mut backoff) {
                self.healthy.store(false, Ordering::Relaxed);
                if !std::mem::replace(&mut self.complained, true) {
                    log::warn!("input \"{}\": {error}; tried again until it works", self.listener.plan.name);
                }
                let until = Monotonic::now() + backoff.next_delay();
                while !self.stopping() && Monotonic::now() < until {
                    std::thread::sleep(until.since(Monotonic::now()).min(STEP));
                }
            }
        }
    }

    fn listen(&mut self, backoff: &mut Backoff) -> Result<(), GpioError> {
        let mut input = open(&self.listener.plan)?;
        let found = input.active()?;
        log::info!("input \"{}\": listens to {}", self.listener.plan.name, input.describe());
        self.healthy.store(true, Ordering::Relaxed);
        self.complained = false;
        backoff.reset();
        let now = Monotonic::now();
        self.debounce.found(found, now);
        (self.listener.hear)(Heard { active: found, at: now, counts: false });
        while !self.stopping() {
            if let Some((active, at)) = input.next(STEP)? {
                let counts = self.debounce.edge(active, at);
                (self.listener.hear)(Heard { active, at, counts });
            }
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn open(plan: &InputPlan) -> Result<Box<dyn Input>, GpioError> {
    match plan.backend {
        GpioBackend::Chardev | GpioBackend::Rppal | GpioBackend::Pwm { .. } => chardev::open(plan),
        GpioBackend::Simulated => simulated::open(plan),
    }
}

/// Which edges count: one to active counts at once when the line was inactive for long enough before it, so that a contact's
/// bounce delays nothing. (A filter that waits, such as the kernel's, would delay the verdict by its period.)
#[derive(Clone, Debug)]
struct Debounce {
    quiet: Duration,
    active: bool,
    /// The last change.
    since: Option<Monotonic>,
}

impl Debounce {
    fn new(quiet: Duration) -> Self {
        Self { quiet, active: false, since: None }
    }

    /// The line's state at the opening. It is taken to have been so for long.
    fn found(&mut self, active: bool, _now: Monotonic) {
        (self.active, self.since) = (active, None);
    }

    /// Whether a change at `at` counts.
    fn edge(&mut self, active: bool, at: Monotonic) -> bool {
        let was = std::mem::replace(&mut self.active, active);
        let long = self.since.is_none_or(|since| at.since(since) >= self.quiet);
        self.since = Some(at);
        active && !was && long
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::config::plan::{Bias, GpioLine};

    #[test]
    fn a_bounce_counts_once_and_at_once() {
        let mut debounce = Debounce::new(Duration::from_millis(5));
        let at = |ms: u64| Monotonic::default() + Duration::from_millis(ms);
        debounce.found(false, at(0));
        for (time, active, counts) in [
            (1, true, true),
            (2, false, false),
            (3, true, false),
            (50, false, false),
            (51, true, false),
            (52, false, false),
            (57, true, true),
            (58, true, false),
        ] {
            assert_eq!(debounce.edge(active, at(time)), counts, "at {time}");
        }
        debounce.found(true, at(100));
        assert!(!debounce.edge(true, at(101)), "it was active");
    }

    fn plan(chip: &str, active_low: bool) -> InputPlan {
        InputPlan {
            name: "sensor".into(),
            backend: GpioBackend::Simulated,
            chip: Some(chip.into()),
            line: GpioLine::Offset(3),
            active_low,
            bias: Bias::AsIs,
            debounce: Duration::ZERO,
            beat: None,
        }
    }

    fn listen(plan: InputPlan) -> (Inputs, Receiver<Heard>) {
        let (sender, heard) = channel();
        let sender = Mutex::new(sender);
        let hear = Box::new(move |it| sender.lock().unwrap().send(it).unwrap());
        (Inputs::start(vec![Listener { plan, hear }]).unwrap(), heard)
    }

    fn next(heard: &Receiver<Heard>) -> (bool, bool) {
        let heard = heard.recv_timeout(Duration::from_secs(5)).expect("something is heard");
        (heard.active, heard.counts)
    }

    #[test]
    fn what_a_line_does_is_heard_in_order() {
        for active_low in [false, true] {
            let chip = format!("inputs-{active_low}");
            simulated::set(&chip, "3", active_low);
            let (inputs, heard) = listen(plan(&chip, active_low));
            assert_eq!(next(&heard), (false, false), "what is found");
            for level in [true, false, true] {
                simulated::set(&chip, "3", level != active_low);
            }
            assert_eq!([next(&heard), next(&heard), next(&heard)], [(true, true), (false, false), (true, true)]);
            assert!(inputs.healthy());
        }
    }

    #[test]
    fn a_lost_line_comes_back_and_its_state_is_told() {
        let (inputs, heard) = listen(plan("inputs-lost", false));
        assert_eq!(next(&heard), (false, false));
        simulated::set_broken("inputs-lost", "3", true);
        let deadline = Monotonic::now() + Duration::from_secs(5);
        while inputs.healthy() {
            assert!(Monotonic::now() < deadline, "the loss is noticed");
            std::thread::sleep(Duration::from_millis(1));
        }
        simulated::set("inputs-lost", "3", true);
        simulated::set_broken("inputs-lost", "3", false);
        assert_eq!(next(&heard), (true, false), "found, and no edge");
    }

    #[test]
    fn a_beat_makes_edges_by_itself() {
        let (_inputs, heard) =
            listen(InputPlan { beat: Some(Duration::from_millis(20)), ..plan("inputs-beat", false) });
        assert_eq!(next(&heard), (false, false));
        assert_eq!([next(&heard), next(&heard), next(&heard)], [(true, true), (false, false), (true, true)]);
    }
}
