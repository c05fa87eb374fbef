//! Writes the manual pages and the shells' completions of `spotter` into a folder, for the package (`make deb`).
//!
//! `cargo run --example manual -- FOLDER`

use std::error::Error;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: manual FOLDER")?;
    std::fs::create_dir_all(&folder)?;
    let mut command = spotter::cli::command();
    clap_mangen::generate_to(command.clone(), &folder)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "spotter", &folder)?;
    }
    Ok(())
}
