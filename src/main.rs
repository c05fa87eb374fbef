//! The `spotter` program: everything is in the library; see [`spotter::cli`].

fn main() -> std::process::ExitCode {
    spotter::cli::main()
}
