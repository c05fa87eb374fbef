//! What a panic does: the daemon drives its pins to their safe levels and ends, so that systemd starts it afresh; a
//! parser of untrusted bytes is contained instead.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` and turns a panic in it, on this thread, into an error that carries the panic's message.
///
/// For other people's code on untrusted input only (parsers, a model's operators): whatever `work` was changing must be dropped after an error.
///
/// # Errors
/// The panic's message.
pub fn contain<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    let before = CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    outcome.map_err(|payload| message(payload.as_ref()))
}

/// Makes every panic that is not contained call `make_safe`, report itself, and end the process with `code`.
///
/// The process is ended from within the hook, whichever thread panicked: a daemon that has lost a thread is not the
/// daemon that was configured.
pub fn end_process_on_panic(code: i32, make_safe: fn()) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if CONTAINED.get() {
            log::debug!("contained: {info}");
            return;
        }
        make_safe();
        report(info);
        std::process::exit(code);
    }));
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_is_an_error_with_its_message() {
        assert_eq!(contain(|| 7), Ok(7));
        assert_eq!(contain(|| panic!("bad byte {}", 3)).map(|()| 0), Err("bad byte 3".to_owned()));
        assert!(!CONTAINED.get());
    }
}
