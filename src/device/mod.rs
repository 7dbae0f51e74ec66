//! Shell of this program; being built.

pub mod serve;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
