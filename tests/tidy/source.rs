//! Just enough of a Rust reader for `tidy`: tokens with their lines, which of them are test code,
//! and the paths they name. Never type-checks anything, and never looks inside comments or strings.

use std::{fs, ops::Range, path::Path, process::Command};

/// One Rust file.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
}

/// An identifier, a number, `::`, or one character of punctuation.
pub struct Token {
    pub text: String,
    /// From 1.
    pub line: usize,
    /// Within a test file or an item under `#[cfg(test)]`.
    pub is_test: bool,
}

/// A path of two segments or more, or one that is imported by `use`.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// A path into our own crate starts with `crate`, however it was written; `*` ends a glob.
    pub segments: Vec<String>,
    pub line: usize,
    pub is_test: bool,
}

/// A function with a body.
pub struct Function {
    pub name: String,
    pub line: usize,
    /// From the line of `fn` to the line of the closing brace.
    pub lines: usize,
}

/// Every file that git tracks or would track, from the repository's root; no build output.
pub fn tracked_files(root: &Path) -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .expect("git is installed (scripts/setup)");
    assert!(
        listed.status.success(),
        "git ls-files failed: {}. Run the tests in a git checkout.",
        String::from_utf8_lossy(&listed.stderr).trim()
    );
    let mut paths: Vec<String> = String::from_utf8_lossy(&listed.stdout)
        .split_terminator('\0')
        .filter(|path| root.join(path).is_file())
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Every Rust file of the repository.
pub fn rust_sources(root: &Path) -> Vec<Source> {
    let mut sources: Vec<Source> = tracked_files(root)
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| {
            let text = fs::read_to_string(root.join(&path)).expect("Rust files are UTF-8");
            Source::new(&path, &text)
        })
        .collect();
    mark_test_modules(&mut sources);
    sources
}

/// Files that another file declares as `#[cfg(test)] mod name;`.
fn mark_test_modules(sources: &mut [Source]) {
    let declared: Vec<String> = sources.iter().flat_map(Source::declared_test_modules).collect();
    for source in sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if declared.iter().any(|m| stem == m || stem.starts_with(&format!("{m}/"))) {
            source.tokens.iter_mut().for_each(|t| t.is_test = true);
        }
    }
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let mut tokens = tokenise(&without_comments_and_strings(text));
        if path.starts_with("tests/") || path.starts_with("benches/") {
            tokens.iter_mut().for_each(|t| t.is_test = true);
        }
        for range in test_items(&tokens) {
            tokens[range].iter_mut().for_each(|t| t.is_test = true);
        }
        Source { path: path.to_owned(), text: text.to_owned(), tokens }
    }

    /// Whether the file is the module `folder` or lies below it.
    pub fn is_in(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// The module that the file is: `src/device/serve/peer.rs` is `["device", "serve", "peer"]`.
    pub fn module(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let stem = inside.trim_end_matches(".rs").trim_end_matches("/mod");
        if stem == "lib" { vec![] } else { stem.split('/').map(str::to_owned).collect() }
    }

    /// Every path that the file names, `use` trees spelt out.
    pub fn named_paths(&self) -> Vec<Named> {
        let tokens = &self.tokens;
        let mut module = self.module();
        let mut inline_ends: Vec<usize> = Vec::new();
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if inline_ends.last() == Some(&at) {
                inline_ends.pop();
                module.pop();
            }
            let text = tokens[at].text.as_str();
            if text == "mod" && is(tokens, at + 2, "{") {
                module.push(tokens[at + 1].text.clone());
                inline_ends.push(matching_brace(tokens, at + 2));
                at += 3;
            } else if text == "use" && !is(tokens, at + 1, "<") {
                let mut leaves = Vec::new();
                let end = use_tree(tokens, at + 1, &[], &mut leaves);
                found.extend(leaves.into_iter().map(|l| self.name(&module, l, &tokens[at])));
                at = end;
            } else if is_identifier(text)
                && !(at > 0 && matches!(text_at(tokens, at - 1), "::" | "."))
            {
                let (segments, end) = plain_path(tokens, at);
                if segments.len() > 1 {
                    found.push(self.name(&module, segments, &tokens[at]));
                }
                at = end;
            } else {
                at += 1;
            }
        }
        found
    }

    /// Every function with a body, nested ones too.
    pub fn functions(&self) -> Vec<Function> {
        let tokens = &self.tokens;
        (0..tokens.len())
            .filter(|&at| text_at(tokens, at) == "fn" && is_identifier(text_at(tokens, at + 1)))
            .filter_map(|at| {
                let open = body_start(tokens, at)?;
                let end = tokens.get(matching_brace(tokens, open))?;
                Some(Function {
                    name: tokens[at + 1].text.clone(),
                    line: tokens[at].line,
                    lines: end.line - tokens[at].line + 1,
                })
            })
            .collect()
    }

    fn name(&self, module: &[String], segments: Vec<String>, token: &Token) -> Named {
        let outside_the_library = !self.path.starts_with("src/") || self.is_in("src/bin");
        let segments = resolve(module, segments, outside_the_library);
        Named { segments, line: token.line, is_test: token.is_test }
    }

    fn declared_test_modules(&self) -> Vec<String> {
        let mut folder = self.module();
        folder.insert(0, "src".to_owned());
        let folder = folder.join("/");
        self.tokens
            .windows(3)
            .filter(|w| w[0].text == "mod" && w[2].text == ";" && w[0].is_test)
            .map(|w| format!("{folder}/{}", w[1].text))
            .collect()
    }
}

fn resolve(module: &[String], segments: Vec<String>, outside_the_library: bool) -> Vec<String> {
    let mut base = module.to_vec();
    let mut rest = segments.as_slice();
    match rest.first().map(String::as_str) {
        Some("crate") if !outside_the_library => return segments,
        Some("larder") if outside_the_library => base.clear(),
        Some("self") if rest.len() > 1 => {}
        Some("super") => {
            while rest.len() > 1 && rest[1] == "super" {
                base.pop();
                rest = &rest[1..];
            }
            base.pop();
        }
        _ => return segments,
    }
    std::iter::once("crate".to_owned()).chain(base).chain(rest[1..].iter().cloned()).collect()
}

/// Reads one tree of a `use` from `at`; answers with where it ended.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    leaves: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match text_at(tokens, at) {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(text_at(tokens, at), "}" | "") {
                    at = use_tree(tokens, at, &path, leaves);
                    if is(tokens, at, ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 2,
            "," | "}" | ";" | "" => break,
            // `use a::{self, b}`: the `self` is `a`.
            "self" if !path.is_empty() => at += 1,
            segment => {
                path.push(segment.to_owned());
                at += 1;
            }
        }
    }
    leaves.push(path);
    at
}

fn plain_path(tokens: &[Token], start: usize) -> (Vec<String>, usize) {
    let mut segments = vec![tokens[start].text.clone()];
    let mut at = start + 1;
    while is(tokens, at, "::") && is_identifier(text_at(tokens, at + 1)) {
        segments.push(tokens[at + 1].text.clone());
        at += 2;
    }
    (segments, at)
}

/// The token ranges of items under `#[cfg(test)]` (or `#[cfg(all(test, …))]`).
fn test_items(tokens: &[Token]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for start in 0..tokens.len() {
        if !(is(tokens, start, "#") && is(tokens, start + 1, "[") && is(tokens, start + 2, "cfg")) {
            continue;
        }
        let mut at = after_attribute(tokens, start);
        let words: Vec<&str> = tokens[start..at].iter().map(|t| t.text.as_str()).collect();
        if !words.contains(&"test") || words.contains(&"not") || words.contains(&"any") {
            continue;
        }
        while is(tokens, at, "#") {
            at = after_attribute(tokens, at);
        }
        let end = match body_start(tokens, at) {
            Some(open) => matching_brace(tokens, open),
            None => (at..tokens.len()).find(|&i| is(tokens, i, ";")).unwrap_or(tokens.len()),
        };
        found.push(start..(end + 1).min(tokens.len()));
    }
    found
}

fn after_attribute(tokens: &[Token], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "[" => depth += 1,
            "]" if depth == 1 => return at + 1,
            "]" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The `{` of the item that starts at `start`; none if a `;` comes first.
fn body_start(tokens: &[Token], start: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "{" if depth == 0 => return Some(at),
            ";" if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn matching_brace(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return at,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

pub fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |t| t.text.as_str())
}

pub fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    text_at(tokens, at) == text
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokenise(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            tokens.push(Token { text: token.to_owned(), line: line + 1, is_test: false });
            rest = after.trim_start();
        }
    }
    tokens
}

/// The same text with the insides of comments, strings and character literals as spaces.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        match end_of_opaque(text, at) {
            Some(end) => {
                out[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
                at = end;
            }
            None => at += 1,
        }
    }
    String::from_utf8(out).expect("only whole literals and comments were blanked")
}

/// If a comment or literal starts at `at`: where it ends.
fn end_of_opaque(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let end = |found: Option<usize>| Some(found.unwrap_or(bytes.len()));
    match bytes[at] {
        b'/' if bytes.get(at + 1) == Some(&b'/') => {
            end(bytes[at..].iter().position(|b| *b == b'\n').map(|n| at + n))
        }
        b'/' if bytes.get(at + 1) == Some(&b'*') => end(end_of_block_comment(bytes, at)),
        b'"' => end(end_of_escaped(bytes, at + 1, b'"')),
        b'r' if !continues_identifier(bytes, at) => {
            let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
            let quote = at + 1 + hashes;
            let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            (bytes.get(quote) == Some(&b'"')).then(|| {
                let rest = &bytes[quote + 1..];
                let found = rest.windows(closing.len()).position(|w| w == closing);
                found.map_or(bytes.len(), |n| quote + 1 + n + closing.len())
            })
        }
        b'\'' if bytes.get(at + 1) == Some(&b'\\') => end(end_of_escaped(bytes, at + 1, b'\'')),
        b'\'' => {
            // Otherwise a lifetime or a label.
            let inside = text[at + 1..].chars().next()?.len_utf8();
            (bytes.get(at + 1 + inside) == Some(&b'\'')).then_some(at + inside + 2)
        }
        _ => None,
    }
}

fn end_of_escaped(bytes: &[u8], mut at: usize, quote: u8) -> Option<usize> {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

fn end_of_block_comment(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return Some(at + 2),
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    None
}

/// Whether the `r` at `at` is the tail of a word; the prefixes of `br"…"` and `cr"…"` are not words.
fn continues_identifier(bytes: &[u8], at: usize) -> bool {
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    match bytes[..at] {
        [.., before, b'b' | b'c'] => is_word(&before),
        [.., before] => is_word(&before),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Source::new("src/x.rs", text).tokens.into_iter().map(|t| t.text).collect()
    }

    fn paths(file: &str, text: &str) -> Vec<String> {
        let named = Source::new(file, text).named_paths();
        named.into_iter().map(|n| n.segments.join("::")).collect()
    }

    #[test]
    fn reads_neither_comments_nor_strings() {
        assert_eq!(words("a /* b /* c */ d */ e // f\ng"), ["a", "e", "g"]);
        assert_eq!(words(r##"a("b \" c", r#"d " e"#, br"f", 'g', '\'', b'h') + 'i"##).join(" "), {
            "a ( , , b , , , b ) + ' i"
        });
        assert_eq!(words("r#type 'é' other"), ["r", "#", "type", "other"]);
    }

    #[test]
    fn spells_out_use_trees() {
        assert_eq!(
            paths("src/a/b.rs", "use crate::{c::{self, D as E}, f::*}; use super::g; use self::h;"),
            ["crate::c", "crate::c::D", "crate::f::*", "crate::a::g", "crate::a::b::h"]
        );
    }

    #[test]
    fn resolves_paths_in_expressions_and_in_inline_modules() {
        assert_eq!(
            paths("src/a/mod.rs", "fn f() { super::x::y(); } mod m { fn g() { super::z(); } }"),
            ["crate::x::y", "crate::a::z"]
        );
        assert_eq!(paths("src/bin/larder.rs", "larder::cli::main()"), ["crate::cli::main"]);
    }

    #[test]
    fn knows_test_code_from_product_code() {
        let text = "fn a() {} #[cfg(test)] #[allow(x)] mod tests { fn b() {} } fn c() {}";
        let source = Source::new("src/x.rs", text);
        let tests: Vec<(&str, bool)> = ["a", "b", "c"]
            .map(|n| (n, source.tokens.iter().any(|t| t.text == n && t.is_test)))
            .into();
        assert_eq!(tests, [("a", false), ("b", true), ("c", false)]);
        assert!(!Source::new("src/x.rs", "#[cfg(not(test))] fn a() {}").tokens[0].is_test);
    }

    #[test]
    fn a_file_declared_for_tests_is_test_code() {
        let mut sources = vec![
            Source::new("src/a/mod.rs", "#[cfg(test)] mod fixtures; mod real;"),
            Source::new("src/a/fixtures.rs", "fn a() {}"),
            Source::new("src/a/real.rs", "fn a() {}"),
        ];
        mark_test_modules(&mut sources);
        assert_eq!([sources[1].tokens[0].is_test, sources[2].tokens[0].is_test], [true, false]);
    }

    #[test]
    fn measures_functions() {
        let source =
            Source::new("src/x.rs", "fn a(x: [u8; 2]) -> u8 {\n  x[0]\n}\ntrait T { fn b(); }");
        let found: Vec<_> =
            source.functions().into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("a".to_owned(), 1, 3)]);
    }
}
