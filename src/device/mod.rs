//! Shell of this program; being built.

pub mod admin;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
