//! Images: a full copy of a vnode for a replica that lacks too much of the log.
//!
//! The sender names its files in a manifest and keeps them open; the receiver fetches them piece by
//! piece beside its own, resumes where an attempt broke off, checks every byte, and takes them all in
//! with one version edit. Series ids are given in log order, so that files mean the same everywhere.
//! Invariant: until that edit is durable the receiver is what it was before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use model::wire::{Decoded, Reader, Write, malformed};
use tokio::time::Instant;

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Result};
use crate::index::{Segment, SeriesCache, SeriesIndex};
use crate::memcache::Memcache;
use crate::summary::{self, FileEntry, VersionEdit};
use crate::tombstone;
use crate::tsm::TsmFile;
use crate::version::{Version, VersionFile, file_path, segment_path, tombstone_path};
use crate::vnode::{Progress, Vnode};

const VERSION: u8 = 1;
/// The most bytes of a piece.
pub const PIECE_BYTES_MAX: u32 = 1 << 20;
/// Files of an image nobody asked about for so long are let go of.
const PIN_TIME: Duration = Duration::from_secs(600);

/// What a file of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rows,
    Tombstones,
    Series,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ImageFile {
    kind: Kind,
    number: u64,
    bytes: u64,
}

/// What an image consists of.
#[derive(Debug)]
struct Manifest {
    /// The vnode it is of: its file numbers mean nothing elsewhere.
    origin: u64,
    whole: VersionEdit,
    files: Vec<ImageFile>,
}

/// The files of an image that was given lately, kept open so that compaction cannot take them away.
#[derive(Debug)]
pub(crate) struct PinnedImage {
    manifest: Bytes,
    files: Vec<(String, Arc<dyn DiskFile>)>,
    used: Instant,
}

/// A piece that is still to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPiece {
    /// The file, as the sender names it.
    pub part: String,
    /// Where the piece begins.
    pub offset: u64,
    /// Its length, bytes.
    pub len: u32,
}

impl Kind {
    fn path(self, folder: &Path, number: u64) -> PathBuf {
        match self {
            Self::Rows => file_path(folder, number),
            Self::Tombstones => tombstone_path(folder, number),
            Self::Series => segment_path(folder, number),
        }
    }
}

impl ImageFile {
    fn name(&self) -> String {
        format!("{:016x}", self.number)
    }
}

// FORMAT: docs/formats/image.md, v1
fn encode(manifest: &Manifest) -> Bytes {
    let mut out = vec![VERSION];
    out.put_u64(manifest.origin);
    out.put_bytes(&summary::encode(&manifest.whole));
    out.put_varint(manifest.files.len() as u64);
    for file in &manifest.files {
        out.put_u8(match file.kind {
            Kind::Rows => 0,
            Kind::Tombstones => 1,
            Kind::Series => 2,
        });
        out.put_u64(file.number);
        out.put_u64(file.bytes);
    }
    out.into()
}

fn decode(bytes: &[u8]) -> Decoded<Manifest> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return malformed(format!("image version {version}; this program reads {VERSION}"));
    }
    let origin = reader.u64()?;
    let whole = summary::decode(reader.bytes()?)?;
    let count = reader.count(17)?;
    let mut files = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = match reader.u8()? {
            0 => Kind::Rows,
            1 => Kind::Tombstones,
            2 => Kind::Series,
            other => return malformed(format!("file kind {other}")),
        };
        files.push(ImageFile { kind, number: reader.u64()?, bytes: reader.u64()? });
    }
    reader.finish()?;
    Ok(Manifest { origin, whole, files })
}

impl Vnode {
    /// Returns the manifest of what is in files now, with the progress it stands for; `None` where
    /// nothing was flushed yet. Its files can be read by piece for ten minutes after the last reading.
    ///
    /// # Errors
    /// What the disk says.
    pub fn image(&self) -> Result<Option<(Progress, Bytes)>> {
        let summary = self.summary.lock();
        let whole = summary.whole().clone();
        if whole.raft_state.is_empty() {
            return Ok(None);
        }
        // A replica that is away is offered the same image again and again.
        if let Some(given) = self.given_image(&whole) {
            let progress = Progress { applied: whole.applied, raft_state: whole.raft_state };
            return Ok(Some((progress, given)));
        }
        let rows = whole.files.iter().map(|entry| (Kind::Rows, entry.number));
        let tombstones = whole.tombstones.iter().map(|number| (Kind::Tombstones, *number));
        let series = whole.segments.iter().map(|number| (Kind::Series, *number));
        let mut manifest =
            Manifest { origin: self.id().0, whole: whole.clone(), files: Vec::new() };
        let mut files = Vec::new();
        for (kind, number) in rows.chain(tombstones).chain(series) {
            let path = kind.path(&self.folder, number);
            let open = self.disk.open(&path).context("open", &path)?;
            let bytes = open.size().context("measure", &path)?;
            let file = ImageFile { kind, number, bytes };
            files.push((file.name(), open));
            manifest.files.push(file);
        }
        drop(summary);
        let progress = Progress { applied: whole.applied, raft_state: whole.raft_state };
        let manifest = encode(&manifest);
        let mut pinned = self.pinned_images.lock();
        pinned.retain(|image| image.used.elapsed() < PIN_TIME);
        pinned.push(PinnedImage { manifest: manifest.clone(), files, used: Instant::now() });
        Ok(Some((progress, manifest)))
    }

    /// Returns the manifest of an image that was given of the same version, and keeps it longer.
    fn given_image(&self, whole: &VersionEdit) -> Option<Bytes> {
        let mut pinned = self.pinned_images.lock();
        let same = |image: &&mut PinnedImage| {
            decode(&image.manifest).is_ok_and(|manifest| manifest.whole == *whole)
        };
        let image = pinned.iter_mut().find(same)?;
        image.used = Instant::now();
        Some(image.manifest.clone())
    }

    /// Lets go of the files of images, and of rows for checksums, that nobody asks about any more.
    pub fn release_pins(&self) {
        self.pinned_images.lock().retain(|image| image.used.elapsed() < PIN_TIME);
        self.pinned_rows.lock().take_if(|rows| rows.since.elapsed() >= PIN_TIME);
    }

    /// Reads a piece of a file of an image given lately.
    ///
    /// # Errors
    /// `Stopped` where the file is not kept any more; what the disk says.
    pub fn read_piece(&self, part: &str, offset: u64, len: u32) -> Result<Bytes> {
        let found = self.pinned_images.lock().iter_mut().find_map(|image| {
            let (_, file) = image.files.iter().find(|(name, _)| name == part)?;
            let file = Arc::clone(file);
            image.used = Instant::now();
            Some(file)
        });
        let file = found.ok_or_else(|| Error::Stopped(format!("no image has file {part}")))?;
        let path = self.folder.join(part);
        let size = file.size().context("measure", &path)?;
        let len = u64::from(len.min(PIECE_BYTES_MAX)).min(size.saturating_sub(offset));
        let piece = file.read_at(offset, usize::try_from(len).unwrap_or(0));
        Ok(Bytes::from(piece.context("read", &path)?))
    }

    /// Returns the next piece of an image that is not here yet; `None` where all is.
    ///
    /// # Errors
    /// A manifest that cannot be read, what the disk says.
    pub fn missing_piece(&self, manifest: &[u8]) -> Result<Option<MissingPiece>> {
        let manifest = decode(manifest).map_err(Error::Command)?;
        for file in &manifest.files {
            let path = self.incoming_path(manifest.origin, file);
            let have = match self.disk.open(&path) {
                Ok(open) => open.size().context("measure", &path)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if file.bytes == 0 {
                        self.make_incoming(&path)?;
                    }
                    0
                }
                Err(error) => return Err(error).context("open", &path),
            };
            if have < file.bytes {
                let len = (file.bytes - have).min(u64::from(PIECE_BYTES_MAX));
                let len = u32::try_from(len).unwrap_or(PIECE_BYTES_MAX);
                return Ok(Some(MissingPiece { part: file.name(), offset: have, len }));
            }
        }
        Ok(None)
    }

    /// Keeps a piece that was fetched; pieces of a file come in order.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keep_piece(&self, manifest: &[u8], piece: &MissingPiece, bytes: &[u8]) -> Result<()> {
        let manifest = decode(manifest).map_err(Error::Command)?;
        let file = manifest.files.iter().find(|file| file.name() == piece.part);
        let file = file.ok_or_else(|| Error::Stopped(format!("no file {}", piece.part)))?;
        let path = self.incoming_path(manifest.origin, file);
        if bytes.len() != piece.len as usize {
            let reason = format!("a piece of {} has {} bytes", piece.part, bytes.len());
            return Err(Error::corrupt(&path, piece.offset, reason));
        }
        let open = if piece.offset == 0 {
            self.make_incoming(&path)?
        } else {
            self.disk.open(&path).context("open", &path)?
        };
        open.write_at(piece.offset, bytes).context("write", &path)?;
        if piece.offset + bytes.len() as u64 >= file.bytes {
            open.sync().context("sync", &path)?;
        }
        Ok(())
    }

    fn make_incoming(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let folder = self.folder.join("incoming");
        self.disk.make_folders(&folder).context("make", &folder)?;
        match self.disk.create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.disk.open(path).context("open", path)
            }
            other => other.context("create", path),
        }
    }

    fn incoming_path(&self, origin: u64, file: &ImageFile) -> PathBuf {
        self.folder.join("incoming").join(format!("{origin:016x}-{}", file.name()))
    }

    /// Replaces all rows by those of an image whose pieces are all here. Blocks on the disk.
    ///
    /// # Errors
    /// A file that is not there or cannot be opened.
    pub fn install_image(&self, manifest: &[u8], raft_state: Bytes) -> Result<()> {
        let manifest = decode(manifest).map_err(Error::Command)?;
        let _none = self.compacting.lock();
        let mut summary = self.summary.lock();
        let old = summary.whole().clone();
        let renamed = self.take_in(&manifest)?;
        let number_of = |kind: Kind, number: u64| {
            let mut pairs = manifest.files.iter().zip(&renamed);
            let found = pairs.find(|(file, _)| file.kind == kind && file.number == number);
            found.map(|(_, number)| *number).ok_or_else(|| {
                Error::Stopped(format!("the image does not hold its file {number:016x}"))
            })
        };
        let mut edit = VersionEdit {
            next_file: self.next_file.load(Ordering::Acquire),
            applied: manifest.whole.applied,
            raft_state: raft_state.clone(),
            sessions: manifest.whole.sessions.clone(),
            until: manifest.whole.until,
            ..VersionEdit::default()
        };
        for entry in &manifest.whole.files {
            edit.files.push(FileEntry { number: number_of(Kind::Rows, entry.number)?, ..*entry });
        }
        for number in &manifest.whole.tombstones {
            edit.tombstones.push(number_of(Kind::Tombstones, *number)?);
        }
        for number in &manifest.whole.segments {
            edit.segments.push(number_of(Kind::Series, *number)?);
        }
        let (version, series) = load(&*self.disk, &self.folder, &edit, &self.cache)?;
        edit.removed = old.files.iter().map(|entry| entry.number).collect();
        edit.removed.extend(old.tombstones.iter().chain(&old.segments));
        summary.append(edit)?;
        self.replace_state(&manifest, raft_state, (version, series));
        drop(summary);
        self.remove_replaced(&old);
        Ok(())
    }

    /// Reads every byte of what was fetched, to be called before it is installed.
    ///
    /// # Errors
    /// `Corrupt` where a file is not what the sender had: it is removed, to be fetched again.
    pub fn check_image(&self, manifest: &[u8]) -> Result<()> {
        let manifest = decode(manifest).map_err(Error::Command)?;
        for file in &manifest.files {
            let path = self.incoming_path(manifest.origin, file);
            let checked = match file.kind {
                Kind::Rows => TsmFile::open(&*self.disk, &path).and_then(|file| file.verify()),
                Kind::Tombstones => tombstone::read(&*self.disk, &path).map(|_| ()),
                Kind::Series => Segment::open(&*self.disk, &path, file.number)
                    .and_then(|segment| segment.verify()),
            };
            if let Err(error) = checked {
                self.disk.remove(&path).context("remove", &path)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives the files numbers of this vnode; without the edit they are strangers still.
    fn take_in(&self, manifest: &Manifest) -> Result<Vec<u64>> {
        let mut numbers = Vec::with_capacity(manifest.files.len());
        if !manifest.files.is_empty() {
            let incoming = self.folder.join("incoming");
            self.disk.sync_folder(&incoming).context("sync", &incoming)?;
        }
        for file in &manifest.files {
            let from = self.incoming_path(manifest.origin, file);
            let number = self.file_number();
            let to = file.kind.path(&self.folder, number);
            self.disk.rename(&from, &to).context("rename", &from)?;
            numbers.push(number);
        }
        for part in ["tsm", "index"] {
            let folder = self.folder.join(part);
            self.disk.sync_folder(&folder).context("sync", &folder)?;
        }
        Ok(numbers)
    }

    fn replace_state(
        &self,
        manifest: &Manifest,
        raft_state: Bytes,
        (version, series): (Version, SeriesIndex),
    ) {
        let held = self.memcache_bytes();
        let mut state = self.state.lock();
        self.series.replace(series);
        state.mutable = Memcache::default();
        state.frozen = None;
        state.version = Arc::new(version);
        state.sessions = manifest.whole.sessions.clone();
        state.until = manifest.whole.until;
        state.progress = Some(Progress { applied: manifest.whole.applied, raft_state });
        self.gauge.0.fetch_sub(held, Ordering::AcqRel);
    }

    /// Removes the files that the image replaced. Readers that pinned them read on.
    fn remove_replaced(&self, old: &VersionEdit) {
        let rows = old.files.iter().map(|entry| file_path(&self.folder, entry.number));
        let tombstones = old.tombstones.iter().map(|number| tombstone_path(&self.folder, *number));
        let series = old.segments.iter().map(|number| segment_path(&self.folder, *number));
        for path in rows.chain(tombstones).chain(series) {
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(%error, path = %path.display(), "a replaced file is left behind");
            }
        }
    }
}

/// Opens the files a version consists of, and the series.
pub(crate) fn load(
    disk: &dyn Disk,
    folder: &Path,
    whole: &VersionEdit,
    cache: &Arc<SeriesCache>,
) -> Result<(Version, SeriesIndex)> {
    let series = SeriesIndex::open(disk, folder, &whole.segments, Arc::clone(cache))?;
    let mut version = Version::default();
    for entry in &whole.files {
        let file = Arc::new(TsmFile::open(disk, &file_path(folder, entry.number))?);
        version.files.push(VersionFile { entry: *entry, file });
    }
    for number in &whole.tombstones {
        let kept = tombstone::read(disk, &tombstone_path(folder, *number))?;
        version.tombstones.extend(kept.into_iter().map(|one| (*number, one)));
    }
    Ok((version, series))
}
