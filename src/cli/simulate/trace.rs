//! Request traces: lines of `time object size_bytes`, in order of time. Reads the file again for every
//! play and keeps only its contents in memory.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use super::demand::{CONTENTS_MAX, Demand, Event, Request, SimulateError};

/// No line of a trace is longer; a file without line ends is no trace.
const LINE_BYTES_MAX: u64 = 4096;

#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    contents: HashMap<Box<str>, u32>,
    sizes: Vec<u64>,
}

struct Line<'a> {
    time: f64,
    object: &'a str,
    size_bytes: u64,
}

impl Trace {
    /// Reads the whole file once, so that what is wrong with it is said before anything is played.
    pub fn open(path: &Path) -> Result<Trace, SimulateError> {
        let mut trace =
            Trace { path: path.to_owned(), contents: HashMap::new(), sizes: Vec::new() };
        let mut requests = 0_u64;
        let (mut contents, mut sizes) = (HashMap::new(), Vec::new());
        trace.read(&mut |number, line| {
            requests += 1;
            let known = match contents.get(line.object) {
                Some(index) => *index,
                None if sizes.len() >= CONTENTS_MAX => {
                    let problem = format!("more than {CONTENTS_MAX} objects: cut the trace");
                    return Err(trace.problem(number, problem));
                }
                None => {
                    let index = sizes.len() as u32;
                    contents.insert(line.object.into(), index);
                    sizes.push(0);
                    index
                }
            };
            // A part of it may have been asked for before.
            let size = &mut sizes[known as usize];
            *size = line.size_bytes.max(*size);
            Ok(())
        })?;
        if requests == 0 {
            return Err(SimulateError::Empty { path: path.to_owned() });
        }
        (trace.contents, trace.sizes) = (contents, sizes);
        Ok(trace)
    }

    fn read(
        &self,
        each: &mut dyn FnMut(u64, Line) -> Result<(), SimulateError>,
    ) -> Result<(), SimulateError> {
        let file_error = |source| SimulateError::File { path: self.path.clone(), source };
        let mut reader =
            BufReader::with_capacity(1 << 20, File::open(&self.path).map_err(file_error)?);
        let (mut bytes, mut number, mut before) = (Vec::new(), 0, f64::NEG_INFINITY);
        loop {
            bytes.clear();
            let mut limited = std::io::Read::take(&mut reader, LINE_BYTES_MAX);
            if limited.read_until(b'\n', &mut bytes).map_err(file_error)? == 0 {
                return Ok(());
            }
            number += 1;
            let line = std::str::from_utf8(&bytes).unwrap_or("\0").trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = parse(line).map_err(|problem| self.problem(number, problem))?;
            if line.time < before {
                let problem = format!(
                    "its time {} is before {before}, the time of the line above it: sort the \
                     trace by time (sort -n)",
                    line.time
                );
                return Err(self.problem(number, problem));
            }
            before = line.time;
            each(number, line)?;
        }
    }

    fn problem(&self, line: u64, problem: impl Into<String>) -> SimulateError {
        SimulateError::Line { path: self.path.clone(), line, problem: problem.into() }
    }
}

fn parse(text: &str) -> Result<Line<'_>, String> {
    let expected = "expected `time object size_bytes`, separated by spaces";
    if text.starts_with('\0') || text.starts_with("\u{fd}7zXZ") {
        return Err("this is not text; unpack the trace first".into());
    }
    let mut words = text.split_whitespace();
    let (Some(time), Some(object), Some(size), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(expected.into());
    };
    let time = time.parse::<f64>().ok().filter(|t| t.is_finite() && t.abs() < 1e15);
    let time = time.ok_or_else(|| format!("the time is not a number: {expected}"))?;
    let whole = "the size is not a whole number of bytes below 2^48";
    let size_bytes = size.parse::<u64>().ok().filter(|size| *size < 1 << 48);
    let size_bytes = size_bytes.ok_or_else(|| format!("{whole}: {expected}"))?;
    Ok(Line { time, object, size_bytes })
}

impl Demand for Trace {
    fn catalogue(&self) -> &[u64] {
        &self.sizes
    }

    /// All devices are there all the time.
    fn play(
        &self,
        _devices: u32,
        each: &mut dyn FnMut(f64, Event) -> Result<(), SimulateError>,
    ) -> Result<(), SimulateError> {
        self.read(&mut |number, line| match self.contents.get(line.object) {
            Some(content) => {
                let request = Request { content: *content, bytes: line.size_bytes };
                each(line.time, Event::Request(request))
            }
            None => Err(self.problem(number, "the trace changed while it was being read")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn open(text: &str) -> Result<Trace, String> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let shown = file.path().display().to_string();
        Trace::open(file.path()).map_err(|e| e.to_string().replace(&shown, "trace"))
    }

    #[test]
    fn reads_lines_and_takes_the_largest_size_of_an_object() {
        let trace = open("# a comment\n0 a 10\n\n0.5 b 7\n1e1 a 30\n").expect("fine");
        assert_eq!(trace.catalogue(), [30, 7]);
    }

    #[test]
    fn says_which_line_is_wrong_and_what_to_do() {
        for (text, expected) in [
            ("", "trace has no requests: each line is `time object size_bytes`"),
            ("0 a 10\n1 b\n", "trace:2: expected `time object size_bytes`, separated by spaces"),
            ("0 a 10 7\n", "trace:1: expected `time object size_bytes`, separated by spaces"),
            ("0 a ten\n", "trace:1: the size is not a whole number of bytes below 2^48: expected"),
            ("nan a 10\n", "trace:1: the time is not a number: expected"),
            ("5 a 1\n4 a 1\n", "trace:2: its time 4 is before 5, the time of the line above it: "),
        ] {
            let problem = open(text).expect_err("refused");
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
