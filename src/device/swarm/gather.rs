//! Holds back small writes until a whole run of the disk can be written at once: flash wears by the
//! erase block, not by the byte. Memory only; what is in here is lost in a crash, so that no piece
//! counts as stored before [`Gather::holds_any`] says that its bytes have left.

use std::{collections::BTreeMap, io, ops::Range};

/// Runs in the making; each is as long as the run at most. Peers work on a piece each, so this is
/// more than the engine has peers; a router has memory for no more.
const RUNS_OPEN_MAX: usize = 12;

pub(super) struct Gather {
    run_bytes: u64,
    /// By number: run `n` starts at `n * run_bytes` of the content.
    runs: BTreeMap<u64, Run>,
    /// Counts writes, to find the run that was left alone the longest.
    writes: u64,
}

struct Run {
    data: Vec<u8>,
    /// In order, apart from each other.
    filled: Vec<Range<usize>>,
    /// Once so much is filled, nothing more will come.
    expected_bytes: u64,
    touched: u64,
}

/// Puts bytes on the disk at an offset of the content.
pub(super) type Write<'a> = dyn Fn(u64, &[u8]) -> io::Result<()> + 'a;

impl Gather {
    pub fn new(run_bytes: u64) -> Gather {
        Gather { run_bytes: run_bytes.max(1), runs: BTreeMap::new(), writes: 0 }
    }

    /// Takes bytes in, and writes each run that they complete. `expected_bytes` says how much of a
    /// range will ever be written.
    pub fn take_in(
        &mut self,
        offset: u64,
        data: &[u8],
        expected_bytes: &dyn Fn(Range<u64>) -> u64,
        write: &Write<'_>,
    ) -> io::Result<()> {
        let end = offset + data.len() as u64;
        let (mut at, mut rest) = (offset, data);
        while at < end {
            let number = at / self.run_bytes;
            let whole = self.whole_runs(at, end);
            let length = match whole {
                0 => (end - at).min((number + 1) * self.run_bytes - at),
                bytes => bytes,
            };
            let (piece, after) = rest.split_at(length as usize);
            match whole {
                0 => self.put(number, at, piece, expected_bytes, write)?,
                _ => write(at, piece)?,
            }
            (at, rest) = (at + length, after);
        }
        Ok(())
    }

    /// How many bytes from `at` on are whole runs of which nothing is held back yet: these need no
    /// copy.
    fn whole_runs(&self, at: u64, end: u64) -> u64 {
        if !at.is_multiple_of(self.run_bytes) {
            return 0;
        }
        let is_new = |number: &u64| !self.runs.contains_key(number);
        let numbers = at / self.run_bytes..end / self.run_bytes;
        numbers.take_while(is_new).count() as u64 * self.run_bytes
    }

    fn put(
        &mut self,
        number: u64,
        at: u64,
        data: &[u8],
        expected_bytes: &dyn Fn(Range<u64>) -> u64,
        write: &Write<'_>,
    ) -> io::Result<()> {
        let start = number * self.run_bytes;
        self.writes += 1;
        let run = self.runs.entry(number).or_insert_with(|| Run {
            data: vec![0; self.run_bytes as usize],
            filled: Vec::new(),
            expected_bytes: expected_bytes(start..start + self.run_bytes),
            touched: 0,
        });
        run.touched = self.writes;
        run.fill((at - start) as usize, data);
        if run.filled_bytes() >= run.expected_bytes {
            self.write_out(number, write)?;
        }
        if self.runs.len() > RUNS_OPEN_MAX
            && let Some(oldest) = self.runs.iter().min_by_key(|(_, r)| r.touched).map(|(n, _)| *n)
        {
            self.write_out(oldest, write)?;
        }
        Ok(())
    }

    fn write_out(&mut self, number: u64, write: &Write<'_>) -> io::Result<()> {
        let Some(run) = self.runs.remove(&number) else { return Ok(()) };
        let start = number * self.run_bytes;
        for filled in run.filled {
            write(start + filled.start as u64, &run.data[filled])?;
        }
        Ok(())
    }

    /// Writes everything that is held back.
    pub fn flush(&mut self, write: &Write<'_>) -> io::Result<()> {
        while let Some(number) = self.runs.keys().next().copied() {
            self.write_out(number, write)?;
        }
        Ok(())
    }

    /// Puts what is held back over what was read from the disk.
    pub fn overlay(&self, offset: u64, buf: &mut [u8]) {
        let end = offset + buf.len() as u64;
        for (number, run) in self.runs_of(offset..end) {
            let start = number * self.run_bytes;
            for filled in &run.filled {
                let from = (start + filled.start as u64).max(offset);
                let to = (start + filled.end as u64).min(end);
                if from < to {
                    let held = &run.data[(from - start) as usize..(to - start) as usize];
                    buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(held);
                }
            }
        }
    }

    /// Whether any of these bytes are not on the disk yet.
    pub fn holds_any(&self, bytes: &Range<u64>) -> bool {
        self.runs_of(bytes.clone()).any(|(number, run)| {
            let start = number * self.run_bytes;
            let overlaps = |filled: &Range<usize>| {
                start + (filled.start as u64) < bytes.end && start + filled.end as u64 > bytes.start
            };
            run.filled.iter().any(overlaps)
        })
    }

    fn runs_of(&self, bytes: Range<u64>) -> impl Iterator<Item = (u64, &Run)> {
        let numbers = bytes.start / self.run_bytes..bytes.end.div_ceil(self.run_bytes);
        self.runs.range(numbers).map(|(number, run)| (*number, run))
    }
}

impl Run {
    fn fill(&mut self, at: usize, data: &[u8]) {
        let mut new = at..at + data.len();
        self.data[new.clone()].copy_from_slice(data);
        self.filled.retain(|old| {
            let apart = old.end < new.start || new.end < old.start;
            if !apart {
                new = new.start.min(old.start)..new.end.max(old.end);
            }
            apart
        });
        let place = self.filled.partition_point(|old| old.start < new.start);
        self.filled.insert(place, new);
    }

    fn filled_bytes(&self) -> u64 {
        self.filled.iter().map(|filled| filled.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_leave_as_one_run_when_it_is_full() {
        let writes = RefCell::new(Vec::new());
        let write = |offset, data: &[u8]| {
            writes.borrow_mut().push((offset, data.len()));
            Ok(())
        };
        let mut gather = Gather::new(64);
        let all = |bytes: Range<u64>| bytes.end - bytes.start;
        for block in [1, 3, 0, 2] {
            assert!(writes.borrow().is_empty());
            gather.take_in(block * 16, &[block as u8; 16], &all, &write).unwrap();
        }
        assert_eq!(*writes.borrow(), [(0, 64)]);
        gather.take_in(128, &[9; 200], &all, &write).unwrap();
        assert_eq!(writes.borrow()[1..], [(128, 192)], "whole runs need no gathering");
        assert!(gather.holds_any(&(320..328)) && !gather.holds_any(&(0..320)));
    }

    #[test]
    fn a_run_with_little_to_come_does_not_wait_for_more() {
        let writes = RefCell::new(Vec::new());
        let write = |offset, data: &[u8]| {
            writes.borrow_mut().push((offset, data.len()));
            Ok(())
        };
        let mut gather = Gather::new(64);
        gather.take_in(70, &[1; 16], &|_| 16, &write).unwrap();
        assert_eq!(*writes.borrow(), [(70, 16)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_reads_see_what_was_written(
            writes in prop::collection::vec((0u64..1500, 1usize..120), 1..80),
            run_bytes in 1u64..200,
        ) {
            let disk = RefCell::new(vec![0u8; 2000]);
            let write = |offset: u64, data: &[u8]| {
                let at = offset as usize;
                disk.borrow_mut()[at..at + data.len()].copy_from_slice(data);
                Ok(())
            };
            let mut model = vec![0u8; 2000];
            let mut gather = Gather::new(run_bytes);
            for (n, (offset, length)) in writes.into_iter().enumerate() {
                let data = vec![n as u8 + 1; length];
                let at = offset as usize;
                model[at..at + length].copy_from_slice(&data);
                gather.take_in(offset, &data, &|r| r.end - r.start, &write).unwrap();
                prop_assert!(gather.runs.len() <= RUNS_OPEN_MAX);
                let mut seen = disk.borrow().clone();
                gather.overlay(0, &mut seen);
                prop_assert_eq!(&seen, &model);
                let held = gather.holds_any(&(offset..offset + length as u64));
                let at_rest = disk.borrow()[at..at + length] == model[at..at + length];
                prop_assert!(held || at_rest);
            }
            gather.flush(&write).unwrap();
            prop_assert_eq!(&*disk.borrow(), &model);
        }
    }
}
