//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once with the pins safe. SIGABRT is how systemd ends a
//! service whose watchdog has starved: this thread still runs when the inference loop is stuck, and makes the pins safe.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGABRT, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// The thread that waits for signals; it ends when this is dropped.
pub(super) struct SignalThread(Handle);

impl SignalThread {
    /// Starts waiting. The first signal sets `stop` and calls `wake`.
    ///
    /// # Errors
    /// The handlers could not be installed.
    pub(super) fn start(stop: Arc<AtomicBool>, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGABRT])?;
        let handle = signals.handle();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                if signal == SIGABRT {
                    log::error!("SIGABRT: the watchdog was not fed; ending at once");
                    super::make_pins_safe();
                    // By the signal itself, so that the service manager sees what it did.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
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
