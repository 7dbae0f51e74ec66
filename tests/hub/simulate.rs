//! `larder simulate` as an operator runs it: its JSON, its table, and what it says to bad input.

use std::{
    io::Write,
    process::{Command, Output},
};

use serde_json::Value;

const FLEET: [&str; 6] =
    ["--devices", "4", "--disk-bytes", "3000", "--uplink-bytes-per-second", "1000"];

fn simulate(arguments: &[&str]) -> Output {
    let larder = env!("CARGO_BIN_EXE_larder");
    Command::new(larder).arg("simulate").args(arguments).args(FLEET).output().expect("it runs")
}

fn trace(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn requests() -> String {
    (0..400).map(|n| format!("{} object-{} 900\n", n * 5, n * n % 7)).collect()
}

#[test]
fn simulate_prints_one_object_for_each_policy_in_the_order_asked_for() {
    let trace = trace(&requests());
    let path = trace.path().to_str().expect("text");
    let output = simulate(&["--trace", path, "--policy", "pull,ours,top,oracle", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).expect("one array");
    let names: Vec<_> = outcomes.iter().map(|o| o["policy"].as_str().expect("a name")).collect();
    assert_eq!(names, ["pull", "ours", "top", "oracle"]);
    for outcome in &outcomes {
        let number = |key: &str| outcome[key].as_u64().unwrap_or_else(|| panic!("{key}"));
        assert_eq!(number("requested_bytes"), 400 * 900);
        assert_eq!(
            number("origin_bytes") + number("egress_bytes"),
            number("requested_bytes") + number("fill_bytes")
        );
        assert!(number("egress_bytes") > 0 && number("flash_bytes_written") > 0, "{outcome}");
        let ratio = outcome["offload_ratio"].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&ratio), "{ratio}");
    }
}

#[test]
fn simulate_prints_a_table_for_people() {
    let trace = trace(&requests());
    let path = trace.path().to_str().expect("text");
    let output = simulate(&["--trace", path, "--policy", "ours"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("POLICY") && text.contains("\nours "), "{text}");
}

#[test]
fn simulate_says_what_is_wrong_with_its_input_and_where() {
    let bad_line = trace("0 a 10\n1 b\n");
    let bad_model = trace("[catalogue]\nzipf = 9\n");
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().expect("text").to_owned();
    for (arguments, expected) in [
        (["--trace", &path(&bad_line)], ":2: expected `time object size_bytes`"),
        (["--trace", "/nowhere/at.all"], "/nowhere/at.all: No such file"),
        (["--demand", &path(&bad_model)], "catalogue.zipf is 9: it must be from 0 to 3"),
    ] {
        let output = simulate(&[arguments[0], arguments[1], "--policy", "ours"]);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(error.starts_with("larder: ") && error.contains(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let neither = simulate(&["--policy", "ours"]);
    assert_eq!(neither.status.code(), Some(2), "clap's own");
}
