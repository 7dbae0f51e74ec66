//! The rules about Rust files: who may import whom, what the pure part must not touch, and what no
//! file may contain. Each takes one file and answers with what is wrong in it.

use crate::{
    Violation,
    source::{Named, Source, is, text_at},
};

/// Each top-level module and the ones that it may import; itself goes without saying.
const LAYERS: &[(&str, &[&str])] = &[
    ("logic", &[]),
    ("api", &["logic"]),
    ("telemetry", &["logic", "api"]),
    ("config", &["logic", "api"]),
    ("process", &[]),
    ("device", &["logic", "api", "config", "telemetry", "process"]),
    ("hub", &["logic", "api", "config", "telemetry", "process"]),
    ("client", &["logic", "api", "config", "telemetry"]),
    ("cli", &["logic", "api", "config", "telemetry", "client"]),
];

/// `larder demo` may start the other programs, through this function of each and no other.
const CLI_MAY_START: &[&[&str]] = &[&["crate", "device", "main"], &["crate", "hub", "main"]];

/// Adapters in a shell: each knows one outside thing, and the shell's `mod.rs` wires them.
const ADAPTERS: &[(&str, &[&str])] = &[
    ("device", &["admin", "gateway", "serve", "store", "swarm", "upstream"]),
    (
        "hub",
        &[
            "channel", "hot", "http", "index", "origin", "reach", "repo", "report", "settle",
            "store", "upload",
        ],
    ),
];

/// The hub's parts meet in its books; the books know none of them.
const ANY_SIBLING_MAY_IMPORT: &[(&str, &str)] = &[("hub", "store")];

/// The hub's routes hand each request to the part that answers it, so they are wiring.
const MAY_IMPORT_ANY_SIBLING: &[(&str, &str)] = &[("hub", "http")];

/// Libraries whose types stay inside their own folders, so that each can be replaced.
const LIBRARY_HOMES: &[(&str, &[&str])] = &[
    ("axum", &["src/device/admin", "src/hub"]),
    ("hyper", &["src/device/admin", "src/hub"]),
    ("igd_next", &["src/device/gateway"]),
    ("librqbit", &["src/device/swarm", "src/client"]),
    ("rusqlite", &["src/device/store", "src/hub/store"]),
    ("tough", &["src/device/upstream", "src/hub/repo"]),
];

/// Files that may contain `unsafe`, reviewed as a whole.
const UNSAFE_FILES: &[&str] = &["src/device/sys.rs", "benches/sending/sys.rs"];

/// What the pure part must not name: the start of a path, and what to do instead.
const IMPURE: &[(&[&str], &str)] = &[
    (&["std", "time", "Instant"], "take `logic::now::Monotonic` as an argument"),
    (&["std", "time", "SystemTime"], "take `logic::now::WallTime` as an argument"),
    (&["std", "env"], "take the value as an argument"),
    (&["std", "fs"], "take the bytes as an argument; the shell reads files"),
    (&["std", "process"], "answer with a command; the shell runs processes"),
    (&["std", "thread"], "answer with a command; the shell owns the threads"),
    (&["std", "net", "TcpListener"], "answer with a command; the shell owns the sockets"),
    (&["std", "net", "TcpStream"], "answer with a command; the shell owns the sockets"),
    (&["std", "net", "UdpSocket"], "answer with a command; the shell owns the sockets"),
    (&["rand", "rng"], "take `&mut impl Rng` as an argument"),
    (&["rand", "random"], "take `&mut impl Rng` as an argument"),
    (&["tokio"], "the pure part is not async; keep tokio in the shell"),
];

/// Names that draw the operating system's randomness, whatever path they come by.
const OS_RANDOMNESS: &[&str] = &[
    "OsRng",
    "RandomState",
    "SysRng",
    "SystemRandom",
    "ThreadRng",
    "from_entropy",
    "from_os_rng",
    "getrandom",
    "make_rng",
    "thread_rng",
];

/// About where a reader starts to get lost.
pub const FUNCTION_LINES_MAX: usize = 70;
pub const FILE_LINES_MAX: usize = 600;

/// File, function, and why it reads better in one piece.
pub const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// File, and why it reads better in one piece: tables and schemas.
pub const LONG_FILES: &[(&str, &str)] = &[];

pub fn imports_follow_the_layers(source: &Source) -> Vec<Violation> {
    let module = source.module();
    let in_library = source.path.starts_with("src/") && !source.is_in("src/bin");
    let Some(here) = module.first().filter(|_| in_library) else { return vec![] };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| name == here) else {
        let what = format!(
            "`{here}` is not a layer that tidy knows: add it to LAYERS in tests/tidy/rules.rs with \
             what it may import"
        );
        return vec![Violation::at(source, 1, what)];
    };
    let forbidden = |named: &&Named| {
        let [first, there, ..] = named.segments.as_slice() else { return false };
        let starts_a_program = here == "cli" && CLI_MAY_START.iter().any(|p| named.segments == *p);
        first == "crate" && there != here && !allowed.contains(&there.as_str()) && !starts_a_program
    };
    let explain = |named: Named| {
        let path = named.segments.join("::");
        let what = format!(
            "`{here}` may not import `{path}` (it may import: {}): move the shared type down into \
             `logic` or `api`, or hand the value over where the program is wired",
            if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") }
        );
        Violation::at(source, named.line, what)
    };
    source.named_paths().into_iter().filter(|n| forbidden(&n)).map(explain).collect()
}

pub fn adapters_do_not_import_each_other(source: &Source) -> Vec<Violation> {
    let module = source.module();
    let [shell, here, ..] = module.as_slice() else { return vec![] };
    let is_adapter =
        |name: &str| ADAPTERS.iter().any(|(its, names)| its == shell && names.contains(&name));
    if !is_adapter(here) || MAY_IMPORT_ANY_SIBLING.contains(&(shell, here)) {
        return vec![];
    }
    let mut found = Vec::new();
    for named in source.named_paths() {
        let [first, its_shell, there, ..] = named.segments.as_slice() else { continue };
        if first != "crate" || its_shell != shell || there == here {
            continue;
        }
        let open_to_all = ANY_SIBLING_MAY_IMPORT.contains(&(shell, there));
        if there == "*" || (is_adapter(there) && !open_to_all) {
            let what = format!(
                "`{shell}::{here}` may not import `{}`: adapters meet only in src/{shell}/mod.rs. \
                 Take a trait, a channel or a plain value, and let mod.rs pass it in",
                named.segments.join("::")
            );
            found.push(Violation::at(source, named.line, what));
        }
    }
    found
}

/// Product code only: a test may well start an axum server to talk to.
pub fn libraries_stay_at_home(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/") {
        return vec![];
    }
    let mut found = Vec::new();
    for named in source.named_paths().into_iter().filter(|n| !n.is_test) {
        let Some((library, homes)) = LIBRARY_HOMES.iter().find(|(l, _)| named.segments[0] == *l)
        else {
            continue;
        };
        if !homes.iter().any(|home| source.is_in(home)) {
            let what = format!(
                "`{library}` may be named only in {}: wrap what is needed in a type of ours there",
                homes.join(" and ")
            );
            found.push(Violation::at(source, named.line, what));
        }
    }
    found
}

/// Clock and randomness are banned from `logic`'s tests too: a failing run must be repeatable.
pub fn logic_is_pure(source: &Source) -> Vec<Violation> {
    if !source.is_in("src/logic") {
        return vec![];
    }
    let mut found = Vec::new();
    for named in source.named_paths() {
        let banned = IMPURE.iter().find(|(start, _)| named.segments.starts_with_names(start));
        if let Some((start, instead)) = banned {
            let what = format!("`{}` in the pure part: {instead}", start.join("::"));
            found.push(Violation::at(source, named.line, what));
        }
    }
    let tokens = &source.tokens;
    for (at, token) in tokens.iter().enumerate() {
        let name = token.text.as_str();
        let what = if OS_RANDOMNESS.contains(&name) {
            format!("`{name}` in the pure part: take `&mut impl Rng` as an argument")
        } else if matches!(name, "HashMap" | "HashSet") && !token.is_test {
            format!("`{name}` in the pure part: its order changes from run to run; take a BTree")
        } else if matches!(name, "async" | "await") {
            format!("`{name}` in the pure part: answer with a command and let the shell wait")
        } else if name == "now" && is(tokens, at + 1, "(") && reads_a_type(tokens, at) {
            "a clock is read in the pure part: take the time as an argument".to_owned()
        } else {
            continue;
        };
        found.push(Violation::at(source, token.line, what));
    }
    found
}

/// `Type::now`, not `module::now`.
fn reads_a_type(tokens: &[crate::source::Token], at: usize) -> bool {
    at >= 2 && is(tokens, at - 1, "::") && text_at(tokens, at - 2).starts_with(char::is_uppercase)
}

pub fn no_unwrap_in_product_code(source: &Source) -> Vec<Violation> {
    let tokens = &source.tokens;
    let unwraps = (1..tokens.len()).filter(|&at| {
        let called = is(tokens, at - 1, ".") || is(tokens, at - 1, "::");
        called && is(tokens, at, "unwrap") && !tokens[at].is_test
    });
    let what = "`unwrap` outside tests: return the error, or `expect(\"why it cannot fail\")`";
    unwraps.map(|at| Violation::at(source, tokens[at].line, what)).collect()
}

pub fn unsafe_stays_in_reviewed_files(source: &Source) -> Vec<Violation> {
    if UNSAFE_FILES.contains(&source.path.as_str()) {
        return vec![];
    }
    let what = format!(
        "`unsafe` outside {}: use nix, socket2 or rustix, or put it there for review",
        UNSAFE_FILES.join(", ")
    );
    let found = source.tokens.iter().filter(|t| t.text == "unsafe");
    found.map(|t| Violation::at(source, t.line, what.clone())).collect()
}

/// `todo!()` and its kin; comments of that kind are a rule about text (`text.rs`).
pub fn nothing_is_left_unwritten(source: &Source) -> Vec<Violation> {
    let tokens = &source.tokens;
    let unwritten = [concat!("to", "do"), concat!("unimple", "mented")];
    (0..tokens.len())
        .filter(|&at| unwritten.contains(&text_at(tokens, at)) && is(tokens, at + 1, "!"))
        .map(|at| {
            Violation::at(source, tokens[at].line, "unwritten code: write it or leave it out")
        })
        .collect()
}

pub fn functions_fit_a_screen(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for function in source.functions() {
        let name = (source.path.as_str(), function.name.as_str());
        let exempt = LONG_FUNCTIONS.iter().any(|(path, function, _)| (*path, *function) == name);
        if function.lines > FUNCTION_LINES_MAX && !exempt {
            let what = format!(
                "`{}` has {} lines, more than {FUNCTION_LINES_MAX}: split it where its story \
                 changes, or add it to LONG_FUNCTIONS with the reason",
                function.name, function.lines
            );
            found.push(Violation::at(source, function.line, what));
        }
    }
    found
}

pub fn files_fit_a_head(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    let exempt = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if lines <= FILE_LINES_MAX || exempt {
        return vec![];
    }
    let what = format!(
        "{lines} lines, more than {FILE_LINES_MAX}: split the file, or add it to LONG_FILES with \
         the reason"
    );
    vec![Violation::at(source, 1, what)]
}

/// The programs in `src/bin` are a call each, and `tests.rs` beside a module is about that module.
pub fn files_start_with_their_purpose(source: &Source) -> Vec<Violation> {
    let speaks_for_itself = source.is_in("src/bin") || source.path.ends_with("/tests.rs");
    if speaks_for_itself || source.text.starts_with("//!") {
        return vec![];
    }
    let what = "the first line must be `//!` and say what the file does and must not do";
    vec![Violation::at(source, 1, what)]
}

trait StartsWithNames {
    fn starts_with_names(&self, names: &[&str]) -> bool;
}

impl StartsWithNames for [String] {
    fn starts_with_names(&self, names: &[&str]) -> bool {
        self.len() >= names.len() && self.iter().zip(names).all(|(a, b)| a == b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&Source) -> Vec<Violation>;

    #[track_caller]
    fn refuses(rule: Rule, path: &str, text: &str) {
        assert!(!rule(&Source::new(path, text)).is_empty(), "{path} passed with: {text}");
    }

    #[track_caller]
    fn accepts(rule: Rule, path: &str, text: &str) {
        let found = rule(&Source::new(path, text));
        assert!(found.is_empty(), "{path} was refused: {}", found[0]);
    }

    #[test]
    fn refuses_imports_against_the_layers() {
        let rule = imports_follow_the_layers;
        refuses(rule, "src/logic/x.rs", "use crate::api::hub::Report;");
        refuses(rule, "src/logic/a/b.rs", "use super::super::super::config;");
        refuses(rule, "src/api/x.rs", "use crate::{logic::units, config::device};");
        refuses(rule, "src/device/x.rs", "fn f() { crate::hub::main(); }");
        refuses(rule, "src/hub/mod.rs", "pub use crate::client::Fetch;");
        refuses(rule, "src/client/mod.rs", "use crate::cli::args;");
        refuses(rule, "src/cli/demo.rs", "use crate::device::store::Ledger;");
        refuses(rule, "src/cli/mod.rs", "use crate::*;");
        refuses(rule, "src/unheard_of.rs", "");
    }

    #[test]
    fn accepts_imports_along_the_layers() {
        let rule = imports_follow_the_layers;
        accepts(rule, "src/logic/a/b.rs", "use super::c; use crate::logic::units; use std::fmt;");
        accepts(rule, "src/api/x.rs", "use crate::logic::units; // not crate::hub");
        accepts(rule, "src/cli/demo.rs", "use crate::client; fn f() { crate::device::main(); }");
        accepts(rule, "src/lib.rs", "pub use crate::hub::main;");
    }

    #[test]
    fn refuses_adapters_that_import_each_other() {
        let rule = adapters_do_not_import_each_other;
        refuses(rule, "src/device/serve/peer.rs", "use crate::device::store::Ledger;");
        refuses(rule, "src/device/swarm.rs", "use super::upstream;");
        refuses(rule, "src/device/admin/mod.rs", "use super::*;");
        refuses(rule, "src/hub/report.rs", "use super::settle::Price;");
        refuses(rule, "src/hub/store/mod.rs", "use crate::hub::channel;");
        refuses(rule, "src/hub/origin/mod.rs", "use crate::hub::http;");
        accepts(rule, "src/device/serve/peer.rs", "use super::queue; use crate::logic::units;");
        accepts(rule, "src/device/serve/mod.rs", "mod tests { use super::*; }");
        accepts(rule, "src/device/mod.rs", "use self::{serve::Engine, store::Store};");
        accepts(rule, "src/hub/report.rs", "use super::store::Books;");
        accepts(rule, "src/hub/http/mod.rs", "use crate::hub::{origin, report};");
    }

    #[test]
    fn refuses_libraries_away_from_home() {
        let rule = libraries_stay_at_home;
        refuses(rule, "src/device/mod.rs", "use librqbit::Session;");
        refuses(rule, "src/device/serve/x.rs", "fn f(c: &rusqlite::Connection) {}");
        refuses(rule, "src/device/upstream.rs", "use axum::Router;");
        refuses(rule, "src/hub/mod.rs", "use tough::Repository;");
        refuses(rule, "src/logic/x.rs", "use igd_next::search_gateway;");
        accepts(rule, "src/device/swarm/fill.rs", "use librqbit::Session;");
        accepts(rule, "src/hub/origin.rs", "use axum::Router;");
        accepts(rule, "src/client/mod.rs", "#[cfg(test)] mod tests { use axum::Router; }");
        accepts(rule, "tests/e2e.rs", "use rusqlite::Connection;");
    }

    #[test]
    fn refuses_clocks_randomness_hash_order_and_io_in_logic() {
        for text in [
            "use std::time::Instant;",
            "use std::time::{Duration, SystemTime};",
            "fn f() { let t = Timestamp::now(); }",
            "fn f() { rand::rng(); }",
            "use rand::rng;",
            "use rand::rngs::{SmallRng, SysRng};",
            "#[cfg(test)] mod tests { fn f() { rand::thread_rng(); } }",
            "use std::collections::HashMap;",
            "fn f(s: &HashSet<u8>) {}",
            "use std::{fs, io};",
            "use std::net::{IpAddr, UdpSocket};",
            "async fn f() {}",
            "use tokio::sync::mpsc;",
        ] {
            refuses(logic_is_pure, "src/logic/x.rs", text);
        }
    }

    #[test]
    fn accepts_time_and_randomness_as_arguments_in_logic() {
        for text in [
            "use std::{time::Duration, net::SocketAddr, collections::BTreeMap};",
            "use crate::logic::now::{Monotonic, Now}; fn f(now: Now) { now.monotonic; }",
            "use rand::{Rng, SeedableRng, rngs::SmallRng}; fn f(rng: &mut impl Rng) {}",
            "#[cfg(test)] mod tests { use std::collections::HashSet; }",
        ] {
            accepts(logic_is_pure, "src/logic/x.rs", text);
        }
        accepts(logic_is_pure, "src/device/clock.rs", "fn f() { Instant::now(); }");
    }

    #[test]
    fn refuses_unwrap_outside_tests() {
        let rule = no_unwrap_in_product_code;
        refuses(rule, "src/x.rs", "fn f() { g()\n    .unwrap() }");
        refuses(rule, "src/x.rs", "fn f() { x.map(Option::unwrap) }");
        accepts(rule, "src/x.rs", "fn f() { g().unwrap_or(0); h().expect(\"a.unwrap()\") }");
        accepts(rule, "src/x.rs", "#[cfg(test)] mod tests { fn f() { g().unwrap() } }");
        accepts(rule, "tests/x.rs", "fn f() { g().unwrap() }");
    }

    #[test]
    fn refuses_unsafe_outside_the_reviewed_files() {
        let rule = unsafe_stays_in_reviewed_files;
        refuses(rule, "src/device/serve/peer.rs", "fn f() { unsafe { g() } }");
        refuses(rule, "tests/x.rs", "unsafe impl Send for X {}");
        accepts(rule, "src/device/sys.rs", "fn f() { unsafe { g() } }");
        accepts(rule, "src/lib.rs", "// unsafe\n#![deny(unsafe_code)]");
    }

    #[test]
    fn refuses_unwritten_code() {
        let rule = nothing_is_left_unwritten;
        refuses(rule, "src/x.rs", concat!("fn f() { to", "do!() }"));
        refuses(rule, "tests/x.rs", concat!("fn f() { unimple", "mented!(\"later\") }"));
        accepts(rule, "src/x.rs", "fn f() { unreachable!() }");
    }

    #[test]
    fn refuses_functions_over_the_limit() {
        let body = |lines| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        refuses(functions_fit_a_screen, "src/x.rs", &body(FUNCTION_LINES_MAX + 1));
        accepts(functions_fit_a_screen, "src/x.rs", &body(FUNCTION_LINES_MAX));
    }

    #[test]
    fn refuses_files_over_the_limit() {
        refuses(files_fit_a_head, "src/x.rs", &"//\n".repeat(FILE_LINES_MAX + 1));
        accepts(files_fit_a_head, "src/x.rs", &"//\n".repeat(FILE_LINES_MAX));
    }

    #[test]
    fn refuses_files_without_a_purpose() {
        refuses(files_start_with_their_purpose, "src/x.rs", "use std::fmt;");
        accepts(files_start_with_their_purpose, "src/x.rs", "//! Does this, never that.");
        accepts(files_start_with_their_purpose, "src/bin/larder.rs", "fn main() {}");
        accepts(files_start_with_their_purpose, "src/logic/x/tests.rs", "use super::*;");
    }
}
