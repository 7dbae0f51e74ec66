//! Replays the corpus of every fuzz target (fuzz/) with the compiler that everything else is built
//! with: what the fuzzer once found stays found. Finds nothing new itself; `make fuzz` does.

mod seeds;
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use targets::Verdict;

type Check = fn(&[u8]) -> Verdict;

const TARGETS: &[(&str, Check)] = &[
    ("extension", targets::extension::check),
    ("handshake", targets::handshake::check),
    ("hotlist", targets::hotlist::check),
    ("journal", targets::journal::check),
    ("messages", targets::messages::check),
    ("metadata", targets::metadata::check),
    ("metainfo", targets::metainfo::check),
    ("mse", targets::mse::check),
    ("policy", targets::policy::check),
    ("session", targets::session::check),
    ("tracker", targets::tracker::check),
];

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Names in a folder, sorted.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("the folder can be read").file_name())
        .map(|name| name.into_string().expect("names are UTF-8"))
        .collect();
    names.sort();
    names
}

/// Every file of the target's corpus; those that we would write ourselves have to be accepted.
fn replay(target: &str) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let folder = fuzz_folder().join("corpus").join(target);
    let (mut accepted, mut refused) = (0, 0);
    for name in names_in(&folder) {
        let data = fs::read(folder.join(&name)).expect("a file of the corpus");
        let verdict = catch_unwind(|| check(&data))
            .unwrap_or_else(|_| panic!("{target} breaks on fuzz/corpus/{target}/{name}"));
        match verdict {
            Verdict::Accepted => accepted += 1,
            Verdict::Refused => {
                refused += 1;
                assert!(!name.starts_with(seeds::OURS), "{target} refuses {name}, which we wrote");
            }
        }
    }
    assert!(accepted > 0 && refused > 0, "{target}: {accepted} accepted, {refused} refused");
}

#[test]
fn extension_handshakes() {
    replay("extension");
}

#[test]
fn handshakes() {
    replay("handshake");
}

#[test]
fn hot_lists() {
    replay("hotlist");
}

#[test]
fn frames_of_the_journal() {
    replay("journal");
}

#[test]
fn messages() {
    replay("messages");
}

#[test]
fn metadata() {
    replay("metadata");
}

#[test]
fn metainfos() {
    replay("metainfo");
}

#[test]
fn encrypted_handshakes() {
    replay("mse");
}

#[test]
fn policies() {
    replay("policy");
}

#[test]
fn sessions() {
    replay("session");
}

#[test]
fn answers_of_trackers() {
    replay("tracker");
}

#[test]
fn every_target_of_the_fuzzer_is_replayed() {
    let replayed: Vec<String> = TARGETS.iter().map(|(name, _)| format!("{name}.rs")).collect();
    assert_eq!(names_in(&fuzz_folder().join("fuzz_targets")), replayed);
}

#[test]
fn the_corpus_has_what_our_encoders_write() {
    for seed in seeds::all() {
        let path = fuzz_folder().join("corpus").join(seed.target).join(&seed.name);
        assert!(
            fs::read(&path).is_ok_and(|found| found == seed.bytes),
            "fuzz/corpus/{}/{} is not what is written today: run `make fuzz-seeds`",
            seed.target,
            seed.name
        );
    }
}

/// Not a test: `make fuzz-seeds` runs it after an encoder has changed.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_seeds() {
    for seed in seeds::all() {
        let folder = fuzz_folder().join("corpus").join(seed.target);
        fs::create_dir_all(&folder).expect("the corpus can be written");
        fs::write(folder.join(&seed.name), seed.bytes).expect("the corpus can be written");
    }
}
