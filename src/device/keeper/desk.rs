//! Where others leave word for the keeper, and take its files: nobody waits for the disk here.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    device::serve::{CheckPieces, OpenContent},
    logic::infohash::Infohash,
};

pub enum Task {
    /// A peer waits for this piece.
    Check(Infohash, u32),
    /// Nothing on its way to peers refers to the file any more.
    Withheld(Infohash),
    /// It is to be served: nobody should write to it.
    Guard(Infohash),
    /// Larder itself is going to write to it.
    Lend(Infohash, SyncSender<()>),
    /// Larder has closed it again.
    Returned(Infohash),
    /// It is not held any more.
    Forget(Infohash),
    /// Somebody waits for a lease of ours to end; the signal does not say which.
    LeaseWanted,
    /// On the disk it is not what it should be, whatever the page cache has.
    Rotten(Infohash, u32),
    Look,
}

#[derive(Clone)]
pub struct Desk {
    tasks: Sender<Task>,
    files: Files,
    busy: Busy,
}

/// Since when the keeper has been waiting for the disk, if it is.
pub type Busy = Arc<Mutex<Option<Instant>>>;

/// A desk, and what comes in there.
pub fn desk() -> (Desk, Receiver<Task>) {
    let (tasks, inbox) = mpsc::channel();
    (Desk { tasks, files: Files::default(), busy: Busy::default() }, inbox)
}

impl Desk {
    /// Have the file guarded as soon as that is possible.
    pub fn guard(&self, infohash: Infohash) {
        self.leave(Task::Guard(infohash));
    }

    /// Returns when the file may be opened for writing without waiting. It has to be closed when the
    /// loan ends. Blocks.
    pub fn lend(&self, infohash: Infohash) -> Loan {
        let (done, wait) = mpsc::sync_channel(1);
        self.leave(Task::Lend(infohash, done));
        // A keeper that is gone guards nothing.
        let _ = wait.recv();
        Loan { desk: self.clone(), infohash }
    }

    pub fn forget(&self, infohash: Infohash) {
        self.leave(Task::Forget(infohash));
    }

    pub fn lease_wanted(&self) {
        self.leave(Task::LeaseWanted);
    }

    pub fn rotten(&self, infohash: Infohash, piece: u32) {
        self.leave(Task::Rotten(infohash, piece));
    }

    /// Call now and then.
    pub fn look(&self) {
        self.leave(Task::Look);
    }

    /// How long the disk has been keeping the keeper waiting, if it is.
    pub fn busy_for(&self) -> Option<Duration> {
        self.busy.lock().map(|since| since.elapsed())
    }

    pub(super) fn busy(&self) -> Busy {
        self.busy.clone()
    }

    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// The keeper ends only with the daemon.
    fn leave(&self, task: Task) {
        let _ = self.tasks.send(task);
    }
}

impl CheckPieces for Desk {
    fn check(&self, infohash: Infohash, piece: u32) {
        self.leave(Task::Check(infohash, piece));
    }

    fn withheld(&self, infohash: Infohash) {
        self.leave(Task::Withheld(infohash));
    }
}

/// Larder itself may write to the content's file.
pub struct Loan {
    desk: Desk,
    infohash: Infohash,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.desk.leave(Task::Returned(self.infohash));
    }
}

/// The files that the keeper watches over: the engine serves from these and no others, whatever lies at
/// their paths by now.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<Vec<(Infohash, File)>>>);

impl Files {
    pub(super) fn insert(&self, infohash: Infohash, file: &File) {
        self.remove(infohash);
        if let Ok(file) = file.try_clone() {
            self.0.lock().push((infohash, file));
        }
    }

    pub(super) fn remove(&self, infohash: Infohash) {
        self.0.lock().retain(|(of, _)| *of != infohash);
    }
}

impl OpenContent for Files {
    fn open(&self, infohash: Infohash) -> io::Result<File> {
        let files = self.0.lock();
        let file = files.iter().find(|(of, _)| *of == infohash).map(|(_, file)| file);
        file.ok_or(io::ErrorKind::NotFound)?.try_clone()
    }
}
