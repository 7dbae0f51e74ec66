//! The rules about every tracked file, whatever its language: nothing left for later, and nothing
//! that works on one machine only.

use crate::Violation;

/// Written in halves, so that this file passes its own rules.
const MARKERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Package registries. Cargo, npm, pip and apt know where theirs are, and machines differ.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("deb.debian", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("arti", "factory"),
];

/// Folders that exist where somebody works, and nowhere else.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Written by package managers, which put their registries in.
const LOCK_FILES: &[&str] = &["Cargo.lock", "package-lock.json"];

/// Built from `web-ui/src`, libraries included.
const BUILT: &str = "web-ui/dist/";

pub fn nothing_is_left_for_later(path: &str, text: &str) -> Vec<Violation> {
    if is_lock_file(path) || path.starts_with(BUILT) {
        return vec![];
    }
    find(path, text, |line| {
        let marker = MARKERS.iter().find(|m| contains_word(line, m))?;
        Some(format!("`{marker}`: do it now, or open an issue and leave no mark"))
    })
}

pub fn no_registry_hosts(path: &str, text: &str) -> Vec<Violation> {
    if is_lock_file(path) {
        return vec![];
    }
    find(path, text, |line| {
        let host = REGISTRY_HOSTS.iter().find(|h| line.contains(**h))?;
        Some(format!("the registry host {host}: use the package manager's own settings"))
    })
}

pub fn no_machine_paths(path: &str, text: &str) -> Vec<Violation> {
    if is_lock_file(path) {
        return vec![];
    }
    find(path, text, |line| {
        let folder = MACHINE_PATHS.iter().find(|folder| starts_a_path(line, folder))?;
        Some(format!("a path below {folder}: make it relative, or take it from the environment"))
    })
}

fn find(path: &str, text: &str, rule: impl Fn(&str) -> Option<String>) -> Vec<Violation> {
    let numbered = text.lines().enumerate();
    numbered
        .filter_map(|(n, line)| {
            rule(line).map(|what| Violation { path: path.to_owned(), line: n + 1, what })
        })
        .collect()
}

fn is_lock_file(path: &str) -> bool {
    LOCK_FILES.contains(&path.rsplit('/').next().unwrap_or(path))
}

fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

/// `folder` as the root of a path, not somewhere within one.
fn starts_a_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-~}*)".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&str, &str) -> Vec<Violation>;

    fn refused(rule: Rule, path: &str, text: &str) -> bool {
        !rule(path, text).is_empty()
    }

    #[test]
    fn refuses_marks_of_later() {
        let rule = nothing_is_left_for_later;
        let later = concat!("ok\n// TO", "DO: write this");
        assert_eq!(rule("src/x.rs", later)[0].line, 2);
        assert!(refused(rule, "web-ui/src/app.tsx", concat!("// FIX", "ME")));
        assert!(!refused(rule, "web-ui/dist/app.js", later));
        assert!(!refused(rule, "docs/x.md", concat!("a MASTO", "DON and a TO", "DO_list")));
    }

    #[test]
    fn refuses_registry_hosts() {
        let text = concat!("registry = \"https://index.crates", ".io/\"");
        assert!(refused(no_registry_hosts, ".cargo/config.toml", text));
        assert!(!refused(no_registry_hosts, "web-ui/package-lock.json", text));
        assert!(!refused(no_registry_hosts, "README.md", "a crate's home page"));
    }

    #[test]
    fn refuses_paths_of_one_machine() {
        let path = concat!("cd /wo", "rk/larder");
        assert!(refused(no_machine_paths, "scripts/setup", path));
        assert!(refused(no_machine_paths, "docs/x.md", concat!("(\"/ro", "ot/.cargo\")")));
        assert!(!refused(no_machine_paths, "docs/x.md", concat!("frame", "/wo", "rk/plan")));
        assert!(!refused(no_machine_paths, "docs/x.md", concat!("target/ro", "ot/usr")));
    }
}
