//! librqbit's view of the sink: it thinks in files, the sink in one run of bytes. Everything passes
//! through [`Progress`], which refuses what must not happen.

use std::{any::TypeId, path::Path, sync::Arc};

use librqbit::{
    ManagedTorrentShared, TorrentMetadata,
    storage::{
        BoxStorageFactory, StorageFactory, StorageFactoryExt, TorrentStorage,
        filesystem::FilesystemStorageFactory,
    },
};
use librqbit_core::lengths::ValidPieceIndex;

use super::progress::Progress;

#[derive(Clone)]
pub(super) struct SinkFactory(pub Arc<Progress>);

impl StorageFactory for SinkFactory {
    type Storage = SinkStorage;

    fn create(
        &self,
        _: &ManagedTorrentShared,
        metadata: &TorrentMetadata,
    ) -> anyhow::Result<SinkStorage> {
        let offsets = metadata.file_infos.iter().map(|file| file.offset_in_torrent).collect();
        Ok(SinkStorage { offsets, progress: self.0.clone() })
    }

    /// librqbit takes a piece map (`engine` writes it) only for its own filesystem storage. What it
    /// would do with one, reading the pieces that the map names, works here just as well.
    fn is_type_id(&self, type_id: TypeId) -> bool {
        type_id == TypeId::of::<Self>() || type_id == TypeId::of::<FilesystemStorageFactory>()
    }

    fn clone_box(&self) -> BoxStorageFactory {
        self.clone().boxed()
    }
}

#[derive(Clone)]
pub(super) struct SinkStorage {
    /// Where each file starts.
    offsets: Arc<[u64]>,
    progress: Arc<Progress>,
}

impl SinkStorage {
    fn offset(&self, file: usize, offset: u64) -> anyhow::Result<u64> {
        let start = self.offsets.get(file);
        start.map(|start| start + offset).ok_or_else(|| anyhow::anyhow!("no file {file}"))
    }
}

impl TorrentStorage for SinkStorage {
    fn init(&mut self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<()> {
        Ok(())
    }

    fn pread_exact(&self, file: usize, offset: u64, buf: &mut [u8]) -> anyhow::Result<()> {
        Ok(self.progress.read_at(self.offset(file, offset)?, buf)?)
    }

    fn pwrite_all(&self, file: usize, offset: u64, buf: &[u8]) -> anyhow::Result<()> {
        Ok(self.progress.write_at(self.offset(file, offset)?, buf)?)
    }

    fn remove_file(&self, _: usize, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn remove_directory_if_empty(&self, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    /// The sink has its full length from the start.
    fn ensure_file_length(&self, _: usize, _: u64) -> anyhow::Result<()> {
        Ok(())
    }

    fn take(&self) -> anyhow::Result<Box<dyn TorrentStorage>> {
        Ok(Box::new(self.clone()))
    }

    /// librqbit calls this after it has read the piece back from here and compared its hash; the
    /// error goes into its log only, so `Progress` keeps it.
    fn on_piece_completed(&self, piece: ValidPieceIndex) -> anyhow::Result<()> {
        Ok(self.progress.piece_completed(piece.get())?)
    }
}
