//! A disk that keeps only what it was told to sync. What was not may be there, or not, or sector by sector:
//! contents and names alike. Harsher than most filesystems, so that nothing depends on one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use rand::{RngExt, rngs::SmallRng};

use crate::log::Change;

const SECTOR: usize = 512;

/// Not an inode: those are used again.
type Id = usize;

#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    inodes: BTreeMap<u64, Id>,
    names: Names,
    unsynced_names: Vec<NameChange>,
}

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    unsynced: Vec<Edit>,
}

enum Edit {
    Write(usize, Vec<u8>),
    Length(usize),
    AtLeast(usize),
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<String, Id>,
    folders: BTreeSet<String>,
}

#[derive(Clone)]
enum NameChange {
    Put(String, Id),
    Rename(String, String),
    Link(String, String),
    Remove(String),
    Mkdir(String),
    Rmdir(String),
}

/// How much of what was not synced has made it.
#[derive(Clone, Copy)]
enum Luck {
    Nothing,
    Everything,
    Some,
}

impl Disk {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { inode, path } => {
                let id = self.files.len();
                self.files.push(File::default());
                self.inodes.insert(*inode, id);
                self.name(NameChange::Put(path.clone(), id));
            }
            Change::Write { inode, offset, data } => {
                self.edit(*inode, Edit::Write(*offset as usize, data.clone()));
            }
            Change::Truncate { inode, length } => {
                self.edit(*inode, Edit::Length(*length as usize));
            }
            Change::Allocate { inode, length } => {
                self.edit(*inode, Edit::AtLeast(*length as usize));
            }
            Change::Sync { inode } => {
                let file = self.file(*inode);
                for edit in std::mem::take(&mut file.unsynced) {
                    edit.make(&mut file.synced);
                }
            }
            Change::SyncFolder { path } => {
                for change in std::mem::take(&mut self.unsynced_names) {
                    match change.is_in(path) {
                        true => change.make(&mut self.names),
                        false => self.unsynced_names.push(change),
                    }
                }
            }
            Change::Rename { from, to } => self.name(NameChange::Rename(from.clone(), to.clone())),
            Change::Link { from, to } => self.name(NameChange::Link(from.clone(), to.clone())),
            Change::Unlink { path } => self.name(NameChange::Remove(path.clone())),
            Change::Mkdir { path } => self.name(NameChange::Mkdir(path.clone())),
            Change::Rmdir { path } => self.name(NameChange::Rmdir(path.clone())),
        }
    }

    fn name(&mut self, change: NameChange) {
        self.unsynced_names.push(change);
    }

    fn edit(&mut self, inode: u64, edit: Edit) {
        self.file(inode).unsynced.push(edit);
    }

    fn file(&mut self, inode: u64) -> &mut File {
        &mut self.files[self.inodes[&inode]]
    }

    /// What is found when the power is back.
    pub fn cut_power(&self, rng: &mut SmallRng, to: &Path) {
        let luck = match rng.random_range(0..6) {
            0 => Luck::Nothing,
            1 => Luck::Everything,
            _ => Luck::Some,
        };
        let mut names = self.names.clone();
        for change in &self.unsynced_names {
            if luck.holds(rng) {
                change.make(&mut names);
            }
        }
        for folder in &names.folders {
            fs::create_dir_all(to.join(folder)).expect("creates");
        }
        for (path, id) in &names.files {
            let path = to.join(path);
            // Its folder may not have made it.
            if path.parent().is_some_and(Path::is_dir) {
                fs::write(path, self.files[*id].after(luck, rng)).expect("writes");
            }
        }
    }
}

impl Luck {
    fn holds(self, rng: &mut SmallRng) -> bool {
        match self {
            Luck::Nothing => false,
            Luck::Everything => true,
            Luck::Some => rng.random(),
        }
    }
}

impl File {
    fn after(&self, luck: Luck, rng: &mut SmallRng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for edit in &self.unsynced {
            match edit {
                Edit::Write(offset, data) if matches!(luck, Luck::Some) && rng.random() => {
                    tear(&mut bytes, *offset, data, rng);
                }
                _ if luck.holds(rng) => edit.make(&mut bytes),
                _ => {}
            }
        }
        bytes
    }
}

impl Edit {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Edit::Write(offset, data) => put(bytes, *offset, data),
            Edit::Length(length) => bytes.resize(*length, 0),
            Edit::AtLeast(length) => bytes.resize(bytes.len().max(*length), 0),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// Some sectors of the write and not others.
fn tear(bytes: &mut Vec<u8>, offset: usize, data: &[u8], rng: &mut SmallRng) {
    let mut from = 0;
    while from < data.len() {
        let to = data.len().min(from + SECTOR - (offset + from) % SECTOR);
        if rng.random() {
            put(bytes, offset + from, &data[from..to]);
        }
        from = to;
    }
}

impl NameChange {
    /// A folder's sync makes those changes safe that are about its own entries.
    fn is_in(&self, folder: &str) -> bool {
        let parent = |path: &str| path.rsplit_once('/').map_or("", |(parent, _)| parent) == folder;
        match self {
            NameChange::Put(path, _) | NameChange::Remove(path) => parent(path),
            NameChange::Mkdir(path) | NameChange::Rmdir(path) => parent(path),
            NameChange::Rename(from, to) | NameChange::Link(from, to) => parent(from) || parent(to),
        }
    }

    /// Changes of what never got there do nothing.
    fn make(&self, names: &mut Names) {
        match self {
            NameChange::Put(path, id) => drop(names.files.insert(path.clone(), *id)),
            NameChange::Rename(from, to) => {
                if let Some(id) = names.files.remove(from) {
                    names.files.insert(to.clone(), id);
                }
            }
            NameChange::Link(from, to) => {
                if let Some(id) = names.files.get(from).copied() {
                    names.files.insert(to.clone(), id);
                }
            }
            NameChange::Remove(path) => drop(names.files.remove(path)),
            NameChange::Mkdir(path) => drop(names.folders.insert(path.clone())),
            NameChange::Rmdir(path) => drop(names.folders.remove(path)),
        }
    }
}
