//! The written reference of the configuration is the one that the code has, and the shipped example is valid.

use std::path::Path;

use spotter::config;

/// Run with `SPOTTER_BLESS=1` to write the reference anew after a change of a key.
#[test]
fn the_written_reference_is_the_codes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/REFERENCE.md");
    let wanted = format!(
        "# Configuration reference\n\n\
         Every key, made from the code's own table by `SPOTTER_BLESS=1 cargo test --test config_reference`. Durations are\n\
         a number and `ms`, `s`, `m` or `h`. `${{NAME}}` in a string is taken from the environment, `$$` is one dollar sign.\n\
         Relative paths are relative to the configuration's folder.\n\n{}",
        config::reference()
    );
    if std::env::var_os("SPOTTER_BLESS").is_some() {
        std::fs::write(&path, &wanted).expect("the reference is writable");
    }
    let found = std::fs::read_to_string(&path).expect("config/REFERENCE.md exists");
    assert!(
        found == wanted,
        "config/REFERENCE.md is not up to date; run SPOTTER_BLESS=1 cargo test --test config_reference"
    );
}

#[test]
fn the_example_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/garden.toml");
    let plan = config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plan.cameras.len(), 1);
    assert_eq!(plan.rules[0].actions, ["siren", "broker"]);
}
