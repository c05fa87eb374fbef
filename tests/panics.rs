//! A panic in any thread of the daemon ends the process, after its pins were made safe. In a process of its own.

use std::process::{Command, Stdio};

/// Set in the child: what it does is the test of the parent.
const CHILD: &str = "SPOTTER_TEST_PANICS_IN";

fn make_safe() {
    println!("pins are safe");
}

#[test]
fn a_panic_in_any_thread_makes_pins_safe_and_ends_the_process() {
    if let Ok(place) = std::env::var(CHILD) {
        spotter::panics::end_process_on_panic(1, make_safe);
        assert_eq!(spotter::panics::contain(|| panic!("in a parser")), Err::<(), _>("in a parser".to_owned()));
        println!("still alive");
        if place == "thread" {
            std::thread::spawn(|| panic!("as the test asks"));
            std::thread::sleep(std::time::Duration::from_secs(30));
        }
        panic!("as the test asks");
    }
    for place in ["main", "thread"] {
        let this = std::env::current_exe().unwrap();
        let output = Command::new(this).arg("--nocapture").env(CHILD, place).stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{place}: {out}{err}");
        assert_eq!(out.matches("pins are safe").count(), 1, "{place}: {out}");
        assert!(out.contains("still alive") && err.contains("as the test asks"), "{place}: {out}{err}");
    }
}
