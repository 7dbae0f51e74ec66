//! `larder config check`: says whether a program would accept a configuration file, without
//! starting it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Subcommand, ValueEnum};

use super::output;
use crate::config::{self, ConfigError, device::DeviceConfig, hub::HubConfig};

/// sysexits.h: EX_CONFIG.
const BAD_CONFIG: u8 = 78;

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Check a file as larderd or larder-hub would.
    Check {
        file: PathBuf,
        /// Which program reads it; guessed from its name and content when left out.
        #[arg(long = "for")]
        program: Option<Program>,
        /// Print one JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
pub enum Program {
    #[value(name = "larderd")]
    #[serde(rename = "larderd")]
    Larderd,
    #[value(name = "larder-hub")]
    #[serde(rename = "larder-hub")]
    LarderHub,
}

#[derive(serde::Serialize)]
struct Verdict {
    file: PathBuf,
    program: Program,
    ok: bool,
    problem: Option<String>,
}

pub fn run(command: &ConfigCommand) -> ExitCode {
    let ConfigCommand::Check { file, program, json } = command;
    let (program, outcome) = check(file, *program);
    let problem = outcome.err().map(|e| e.to_string());
    let ok = problem.is_none();
    match (json, &problem) {
        (true, _) => output::json(&Verdict { file: file.clone(), program, ok, problem }),
        (false, None) => println!("{}: ok", file.display()),
        (false, Some(problem)) => eprintln!("{problem}"),
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) }
}

fn check(file: &Path, program: Option<Program>) -> (Program, Result<(), ConfigError>) {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(source) => {
            let error = ConfigError::Read { path: file.to_owned(), source };
            return (program.unwrap_or(Program::Larderd), Err(error));
        }
    };
    let program = program.unwrap_or_else(|| guess(file, &text));
    let outcome = match program {
        Program::Larderd => config::parse::<DeviceConfig>(file, &text).map(drop),
        Program::LarderHub => config::parse::<HubConfig>(file, &text).map(drop),
    };
    (program, outcome)
}

/// By what only one of the two has; by the file's name when the content does not tell.
fn guess(file: &Path, text: &str) -> Program {
    let device = ["hub", "serve", "schedule", "caps", "fill", "cache", "admin"];
    let hub = ["tracker", "metadata", "policy", "public_url", "listen"];
    let known = |words: &[&str]| {
        let table: toml::Table = toml::from_str(text).unwrap_or_default();
        words.iter().filter(|word| table.contains_key(**word)).count()
    };
    match known(&hub).cmp(&known(&device)) {
        std::cmp::Ordering::Greater => Program::LarderHub,
        std::cmp::Ordering::Less => Program::Larderd,
        std::cmp::Ordering::Equal => {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if name.contains("hub") { Program::LarderHub } else { Program::Larderd }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn checked(name: &str, text: &str) -> (Program, Option<String>) {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(name);
        std::fs::write(&file, text).expect("writes");
        let (program, outcome) = check(&file, None);
        let strip = format!("{}/", dir.path().display());
        (program, outcome.err().map(|e| e.to_string().replace(&strip, "")))
    }

    #[test]
    fn tells_the_two_programs_apart() {
        let hub = HubConfig::DEFAULT_TOML;
        let device = DeviceConfig::DEFAULT_TOML;
        assert_eq!(checked("x.toml", hub), (Program::LarderHub, None));
        assert_eq!(checked("x.toml", device), (Program::Larderd, None));
        assert_eq!(checked("hub.toml", ""), (Program::LarderHub, None));
        assert_eq!(checked("larderd.toml", "data_dir = \"/x\""), (Program::Larderd, None));
    }

    #[test]
    fn names_file_and_line() {
        let (program, problem) = checked("x.toml", "[tracker]\nintervall_seconds = 3\n");
        assert_eq!(program, Program::LarderHub);
        let problem = problem.expect("refused");
        assert!(problem.starts_with("x.toml:2: "), "{problem}");
        assert!(problem.contains("intervall_seconds"), "{problem}");
        let (_, problem) = checked("hub.toml", "[tracker\n");
        assert!(problem.expect("refused").starts_with("hub.toml:1: "));
    }
}
