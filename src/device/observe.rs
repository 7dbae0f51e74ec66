//! The local status socket: whoever may open it gets the page's status as JSON, once. It never
//! reads a byte, so there is nothing to attack it with.

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::UnixListener,
    sync::watch,
    time::{sleep, timeout},
};

use crate::api::{admin::Status, endpoints::STATUS_SOCKET};

/// A reader that stops reading is let go.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Out of file descriptors: give others time to close theirs.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

pub fn start(data_dir: &Path, status: watch::Receiver<Status>) -> io::Result<()> {
    let path = data_dir.join(STATUS_SOCKET);
    // Left by a process that was killed; the store's lock says that it is gone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                sleep(ACCEPT_RETRY).await;
                continue;
            };
            let text = serde_json::to_vec(&*status.borrow()).expect("our own document serialises");
            tokio::spawn(async move {
                // A reader that went away has what it wanted.
                let _ = timeout(WRITE_TIMEOUT, stream.write_all(&text)).await;
            });
        }
    });
    Ok(())
}
