//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once with the pins safe. SIGHUP: the configuration is
//! read again. SIGABRT: systemd ends a service with it whose watchdog has starved; this thread still runs when the inference loop is stuck.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGABRT, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::control::{Command, Control};

/// The thread that waits for signals; it ends when this is dropped.
pub(super) struct SignalThread(Handle);

impl SignalThread {
    /// Starts waiting. The first signal to end sets `stop` and calls `wake`; a hangup asks `control` for a reload.
    ///
    /// # Errors
    /// The handlers could not be installed.
    pub(super) fn start(
        stop: Arc<AtomicBool>,
        control: Arc<Control>,
        wake: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGABRT])?;
        let handle = signals.handle();
        let on_terminal = std::io::stdin().is_terminal();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                if signal == SIGABRT {
                    log::error!("SIGABRT: ending at once");
                    super::make_pins_safe();
                    // By the signal itself, so that the service manager sees what it did.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                    std::process::abort();
                }
                // A terminal that has been closed is none any more: what was started on it ends with it.
                let hung_up = on_terminal && !std::io::stdin().is_terminal();
                if signal == SIGHUP && !hung_up {
                    log::info!("SIGHUP: reading the configuration again");
                    if let Err(full) = control.send(Command::Reload) {
                        log::warn!("SIGHUP: {full}");
                    }
                    continue;
                }
                let name = match signal {
                    SIGINT => "SIGINT",
                    SIGTERM => "SIGTERM",
                    _ => "the terminal is gone",
                };
                if stop.swap(true, Ordering::SeqCst) {
                    log::warn!("{name} again: ending at once");
                    super::make_pins_safe();
                    std::process::exit(1);
                }
                log::info!("{name}: stopping");
                wake();
            }
        })?;
        Ok(Self(handle))
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.0.close();
    }
}
