//! The bytes of one content: all files of the torrent concatenated in piece order, in one file that
//! has its full length from the start, and the space of what is to be held. Knows nothing of pieces.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::libc;

#[derive(Debug)]
pub struct ContentFile {
    file: File,
    path: PathBuf,
}

impl ContentFile {
    pub(super) fn new(file: File, path: PathBuf) -> ContentFile {
        ContentFile { file, path }
    }

    /// Makes the file with `length` bytes of zeros. The space of `wanted` is taken at once, so that a
    /// fill cannot fail half-way because somebody else filled the disk; the rest is a hole.
    pub(super) fn create(
        path: PathBuf,
        length: u64,
        wanted: Range<u64>,
    ) -> io::Result<ContentFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(&path)?;
        file.set_len(length)?;
        reserve(&file, wanted)?;
        // The length is metadata, which fdatasync may leave out while nothing was written.
        file.sync_all()?;
        Ok(ContentFile { file, path })
    }

    /// Fills `buf` or fails: never a short read.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Returns when everything written so far is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Takes the space of these bytes too. What is there already stays as it is.
    pub(super) fn reserve(&self, bytes: Range<u64>) -> io::Result<()> {
        reserve(&self.file, bytes)?;
        self.file.sync_all()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn reserve(file: &File, bytes: Range<u64>) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let too_large =
        |_| io::Error::new(io::ErrorKind::FileTooLarge, "larger than files can be here");
    let start = libc::off_t::try_from(bytes.start).map_err(too_large)?;
    let length = libc::off_t::try_from(bytes.end - bytes.start).map_err(too_large)?;
    match nix::fcntl::posix_fallocate(file, start, length) {
        Ok(()) => Ok(()),
        // FAT, some network filesystems: no way to reserve. The caller has compared the free space;
        // writing gigabytes of zeros to be sure would wear the flash for nothing.
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::EINVAL) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
