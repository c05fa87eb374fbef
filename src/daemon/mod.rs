//! The daemon: wiring, supervision, back-off, watchdog, signals.
