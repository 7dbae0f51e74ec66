//! Keeps the picture in ARCHITECTURE.md true: reads the source tree and fails, with the rule and
//! what to do, where it departs from the rules. Changes nothing. Each rule is itself tested on bad
//! snippets, next to the rule.

mod rules;
mod source;
mod text;

use std::{fmt, fs, path::Path};

use source::Source;

pub struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Violation {
    fn at(source: &Source, line: usize, what: impl Into<String>) -> Violation {
        Violation { path: source.path.clone(), line, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn every_source_passes(rule: fn(&Source) -> Vec<Violation>) {
    report(source::rust_sources(root()).iter().flat_map(rule).collect());
}

#[track_caller]
fn every_file_passes(rule: fn(&str, &str) -> Vec<Violation>) {
    let read = |path: String| Some((fs::read_to_string(root().join(&path)).ok()?, path));
    // What is not UTF-8 is not text.
    let texts = source::tracked_files(root()).into_iter().filter_map(read);
    report(texts.flat_map(|(text, path)| rule(&path, &text)).collect());
}

#[track_caller]
fn report(violations: Vec<Violation>) {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(lines.is_empty(), "{} departure(s):\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn imports_follow_the_layers() {
    every_source_passes(rules::imports_follow_the_layers);
}

#[test]
fn adapters_do_not_import_each_other() {
    every_source_passes(rules::adapters_do_not_import_each_other);
}

#[test]
fn libraries_stay_at_home() {
    every_source_passes(rules::libraries_stay_at_home);
}

#[test]
fn logic_is_pure() {
    every_source_passes(rules::logic_is_pure);
}

#[test]
fn no_unwrap_in_product_code() {
    every_source_passes(rules::no_unwrap_in_product_code);
}

#[test]
fn unsafe_stays_in_reviewed_files() {
    every_source_passes(rules::unsafe_stays_in_reviewed_files);
}

#[test]
fn nothing_is_left_unwritten() {
    every_source_passes(rules::nothing_is_left_unwritten);
}

#[test]
fn functions_fit_a_screen() {
    every_source_passes(rules::functions_fit_a_screen);
}

#[test]
fn files_fit_a_head() {
    every_source_passes(rules::files_fit_a_head);
}

#[test]
fn files_start_with_their_purpose() {
    every_source_passes(rules::files_start_with_their_purpose);
}

#[test]
fn nothing_is_left_for_later() {
    every_file_passes(text::nothing_is_left_for_later);
}

#[test]
fn no_registry_hosts() {
    every_file_passes(text::no_registry_hosts);
}

#[test]
fn no_machine_paths() {
    every_file_passes(text::no_machine_paths);
}

#[test]
fn every_exemption_is_still_needed() {
    let sources = source::rust_sources(root());
    let lines_of = |path: &str, function: &str| {
        let source = sources.iter().find(|s| s.path == path)?;
        let found = source.functions().into_iter().filter(|f| f.name == function);
        found.map(|f| f.lines).max()
    };
    for (path, function, _) in rules::LONG_FUNCTIONS {
        let needed = lines_of(path, function).is_some_and(|n| n > rules::FUNCTION_LINES_MAX);
        assert!(needed, "{path}: `{function}` is no longer long: take it off LONG_FUNCTIONS");
    }
    for (path, _) in rules::LONG_FILES {
        let long = |s: &Source| s.text.lines().count() > rules::FILE_LINES_MAX;
        let needed = sources.iter().any(|s| s.path == *path && long(s));
        assert!(needed, "{path} is no longer long: take it off LONG_FILES");
    }
}

#[test]
fn the_tree_is_really_read() {
    let sources = source::rust_sources(root());
    let lib = sources.iter().find(|s| s.path == "src/lib.rs").expect("src/lib.rs is tracked");
    assert!(lib.tokens.iter().any(|t| t.text == "logic"), "src/lib.rs was not read as Rust");
    assert!(sources.iter().any(|s| s.is_in("src/logic")), "src/logic was not found");
}
