//! Reads what recorder.c has written: every change of the data folder, in the order in which it came.

use std::path::Path;

/// One call, carried out. Paths are relative to the data folder.
#[derive(Debug)]
pub struct Record {
    pub nanoseconds: u64,
    pub change: Change,
}

#[derive(Debug)]
pub enum Change {
    Create { inode: u64, path: String },
    Write { inode: u64, offset: u64, data: Vec<u8> },
    Truncate { inode: u64, length: u64 },
    Allocate { inode: u64, length: u64 },
    Sync { inode: u64 },
    SyncFolder { path: String },
    Rename { from: String, to: String },
    Link { from: String, to: String },
    Unlink { path: String },
    Mkdir { path: String },
    Rmdir { path: String },
}

const HEAD_WORDS: usize = 6;

pub fn read(log: &Path, root: &Path) -> Vec<Record> {
    let bytes = std::fs::read(log).expect("the recorder has written");
    let mut rest = &bytes[..];
    let mut records = vec![];
    while !rest.is_empty() {
        let head: [u64; HEAD_WORDS] = std::array::from_fn(|_| word(&mut rest));
        let [nanoseconds, op, inode, offset, path_bytes, data_bytes] = head;
        let path = relative(take(&mut rest, path_bytes), root);
        let data = take(&mut rest, data_bytes);
        let change = match op {
            1 => Change::Create { inode, path },
            2 => Change::Write { inode, offset, data: data.to_vec() },
            3 => Change::Truncate { inode, length: offset },
            4 => Change::Sync { inode },
            5 => Change::SyncFolder { path },
            6 => Change::Rename { from: path, to: relative(data, root) },
            7 => Change::Unlink { path },
            8 => Change::Mkdir { path },
            9 => Change::Rmdir { path },
            10 => Change::Link { from: path, to: relative(data, root) },
            11 => Change::Allocate { inode, length: offset },
            _ => panic!("an unknown record: {op}"),
        };
        records.push(Record { nanoseconds, change });
    }
    records
}

fn relative(path: &[u8], root: &Path) -> String {
    let path = std::str::from_utf8(path).expect("UTF-8");
    let root = root.to_str().expect("UTF-8");
    let below = path.strip_prefix(root).expect("only what is below is recorded");
    below.trim_start_matches('/').to_owned()
}

fn take<'a>(rest: &mut &'a [u8], bytes: u64) -> &'a [u8] {
    let (taken, others) = rest.split_at(bytes as usize);
    *rest = others;
    taken
}

fn word(rest: &mut &[u8]) -> u64 {
    u64::from_ne_bytes(take(rest, 8).try_into().expect("eight bytes"))
}
