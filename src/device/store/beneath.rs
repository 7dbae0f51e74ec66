//! Opens files below one folder, by names that nobody can bend: no link is followed on the way, and no
//! path leads out. The folder itself is found once; what its own path becomes later does not matter.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2},
    sys::stat::Mode,
};

#[derive(Debug)]
pub(super) struct Beneath(OwnedFd);

impl Beneath {
    /// The folder may be a link of the owner's to another disk.
    pub fn new(folder: &Path) -> io::Result<Beneath> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Beneath(open(folder, flags, Mode::empty())?))
    }

    /// A regular file that is there already. `relative` has nothing but plain names.
    pub fn open(&self, relative: &Path, flags: OFlag) -> io::Result<File> {
        // Else a pipe in the file's place would have us wait for its writer.
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let how = OpenHow::new().flags(flags).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        let opened = match openat2(&self.0, relative, how) {
            // Before Linux 5.6, and in sandboxes that do not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) => self.open_step_by_step(relative, flags),
            opened => opened,
        };
        let file = File::from(opened?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file"));
        }
        Ok(file)
    }

    fn open_step_by_step(&self, relative: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let names: Option<Vec<_>> = relative
            .components()
            .map(|component| match component {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        let names = names.ok_or(Errno::EXDEV)?;
        let (last, folders) = names.split_last().ok_or(Errno::ENOENT)?;
        let folder_flags =
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut here = self.0.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        for name in folders {
            here = openat(&here, *name, folder_flags, Mode::empty())?;
        }
        openat(&here, *last, flags, Mode::empty())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// By both ways.
    fn opens(beneath: &Beneath, name: &str) -> [bool; 2] {
        let (path, flags) = (Path::new(name), OFlag::O_RDONLY | OFlag::O_NOFOLLOW);
        let by_steps = beneath.open_step_by_step(path, flags);
        [beneath.open(path, OFlag::O_RDONLY).is_ok(), by_steps.is_ok()]
    }

    #[test]
    fn follows_no_link_and_leads_nowhere_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("content");
        fs::create_dir_all(root.join("a")).expect("creates");
        fs::create_dir(dir.path().join("elsewhere")).expect("creates");
        for file in ["content/a/data", "elsewhere/data"] {
            fs::write(dir.path().join(file), "x").expect("writes");
        }
        symlink("data", root.join("a/link")).expect("links");
        symlink("a", root.join("folder")).expect("links");
        symlink("../elsewhere", root.join("out")).expect("links");
        let beneath = Beneath::new(&root).expect("opens");
        assert_eq!(opens(&beneath, "a/data"), [true; 2]);
        for name in ["a/link", "folder/data", "out/data", "../elsewhere/data", "/etc/passwd", "b"] {
            assert_eq!(opens(&beneath, name), [false; 2], "{name}");
        }
        assert!(beneath.open(Path::new("a"), OFlag::O_RDONLY).is_err(), "a folder is no file");
    }

    #[test]
    fn a_folder_that_is_exchanged_later_is_not_taken_for_the_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("content");
        fs::create_dir(&root).expect("creates");
        fs::write(root.join("data"), "x").expect("writes");
        let beneath = Beneath::new(&root).expect("opens");
        fs::rename(&root, dir.path().join("old")).expect("renames");
        symlink("/etc", &root).expect("links");
        assert!(opens(&beneath, "data")[0] && !opens(&beneath, "passwd")[0]);
    }
}
