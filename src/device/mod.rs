//! Shell of this program; being built.

pub mod store;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
