//! Faults on demand, for the scenarios of the emulated board (`--features faults`); never in what is shipped.
//!
//! The file `fault` in the unit's runtime directory, `/run/spotter`, says what the inference loop does next: `stall` or `panic`.

use std::path::PathBuf;

/// Does what the file asks for, once.
pub(super) fn inject() {
    let Some(folder) = std::env::var_os("RUNTIME_DIRECTORY") else { return };
    let file = PathBuf::from(folder).join("fault");
    let Ok(fault) = std::fs::read_to_string(&file) else { return };
    if let Err(error) = std::fs::remove_file(&file) {
        log::warn!("{}: {error}", file.display());
    }
    match fault.trim() {
        "panic" => panic!("a panic on demand"),
        "stall" => loop {
            std::thread::park();
        },
        other => log::warn!("there is no fault {other:?}: stall, panic"),
    }
}
