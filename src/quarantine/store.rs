//! Items as files, and what is known of them in memory. A file is written under another name and then renamed; nothing
//! is synced: what is here was acknowledged to nobody, so a crash may forget the latest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use super::item::{self, Item, Summary, blocks};
use crate::buffer::EventId;
use crate::clock::Timestamp;
use crate::config::QuarantineSettings;
use crate::reason::Reason;
use crate::seal::{Keyring, LiveKeyring, key_of};
use crate::shares::Origin;

/// The ending of a file that is being written.
const PART: &str = "part";

/// Which items; all given conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub route: Option<String>,
    pub reason: Option<Reason>,
    /// Received at or after.
    pub since: Option<Timestamp>,
    /// Received before.
    pub until: Option<Timestamp>,
}

impl Filter {
    fn matches(&self, item: &Summary) -> bool {
        self.route.as_ref().is_none_or(|route| *route == item.route)
            && self.reason.is_none_or(|reason| reason == item.reason)
            && self.since.is_none_or(|since| item.received_at >= since)
            && self.until.is_none_or(|until| item.received_at < until)
    }
}

#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    pub(super) keys: LiveKeyring,
    shelf: Mutex<Shelf>,
    /// Held while a file is replaced or deleted.
    replacing: Mutex<()>,
}

/// By id, and so by the time of reception.
#[derive(Debug, Default)]
struct Shelf {
    items: BTreeMap<EventId, Summary>,
    bytes: u64,
    /// Of each route that has any.
    shares: HashMap<String, Share>,
}

/// What a route has there.
#[derive(Debug, Default)]
struct Share {
    of: Holding,
    /// Of each origin that has any: at most as many as there are items.
    origins: HashMap<Origin, Holding>,
}

#[derive(Debug, Default)]
struct Holding {
    ids: BTreeSet<EventId>,
    bytes: u64,
}

impl Holding {
    fn add(&mut self, item: &Summary) {
        self.bytes += item.size;
        self.ids.insert(item.id);
    }

    /// Returns whether nothing is left.
    fn take(&mut self, item: &Summary) -> bool {
        self.bytes -= item.size;
        self.ids.remove(&item.id);
        self.ids.is_empty()
    }

    /// Who has most of what is scarce; of equals the one whose oldest is older.
    fn most(&self, scarce: Scarce) -> impl Ord + use<> {
        let much = match scarce {
            Scarce::Places => self.ids.len() as u64,
            Scarce::Bytes => self.bytes,
        };
        (much, std::cmp::Reverse(self.ids.first().copied()))
    }
}

/// What there is too much of.
#[derive(Clone, Copy)]
enum Scarce {
    Places,
    Bytes,
}

impl Shelf {
    fn insert(&mut self, item: Summary) {
        self.remove(item.id);
        self.bytes += item.size;
        let share = self.shares.entry(item.route.clone()).or_default();
        share.of.add(&item);
        share.origins.entry(Origin::of(item.source)).or_default().add(&item);
        self.items.insert(item.id, item);
    }
    fn remove(&mut self, id: EventId) -> Option<Summary> {
        let item = self.items.remove(&id)?;
        self.bytes -= item.size;
        if let Some(share) = self.shares.get_mut(&item.route) {
            let origin = Origin::of(item.source);
            if share.origins.get_mut(&origin).is_some_and(|holding| holding.take(&item)) {
                share.origins.remove(&origin);
            }
            if share.of.take(&item) {
                self.shares.remove(&item.route);
            }
        }
        Some(item)
    }
    /// Takes the oldest off as long as `too_old` says so of it.
    fn take_oldest(&mut self, too_old: impl Fn(&Summary) -> bool) -> Vec<EventId> {
        let mut taken = Vec::new();
        while let Some((&oldest, _)) = self.items.first_key_value().filter(|(_, item)| too_old(item)) {
            self.remove(oldest);
            taken.push(oldest);
        }
        taken
    }
    /// Makes room as long as something is scarce: of the route that has the most of it, and there of the origin that has
    /// the most of it, the oldest goes. So a flood on one route pushes out its own, and what it has pushed out of the same
    /// route came from where it comes from.
    fn make_room(&mut self, scarce: impl Fn(&Self) -> Option<Scarce>) -> Vec<EventId> {
        let mut taken = Vec::new();
        while let Some(scarce) = scarce(self) {
            let route = self.shares.values().max_by_key(|share| share.of.most(scarce));
            let origin = route.and_then(|share| share.origins.values().max_by_key(|of| of.most(scarce)));
            let Some(oldest) = origin.and_then(|of| of.ids.first().copied()) else { break };
            self.remove(oldest);
            taken.push(oldest);
        }
        taken
    }
}

impl Store {
    pub(super) fn new(folder: PathBuf, keys: Keyring) -> Self {
        Self { folder, keys: LiveKeyring::new(keys), shelf: Mutex::default(), replacing: Mutex::default() }
    }

    /// Finds the items of earlier processes. What can't be read whole is deleted: it is half a write.
    pub(super) fn load(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let keys = self.keys.now();
        for entry in entries {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str()?.parse::<EventId>().ok());
            match (id, Summary::read(&path, &keys)) {
                (Some(id), Ok(item)) if item.id == id => self.shelf.lock().insert(item),
                (None, _) if path.extension().is_none_or(|end| end != PART) => {
                    tracing::warn!(file = %path.display(), "this is no item of the quarantine: it stays untouched");
                }
                (_, Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::error!(%error, file = %path.display(), "an item of the quarantine can't be opened: it stays untouched");
                }
                (_, Err(error))
                    if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
                {
                    return Err(error);
                }
                _ => {
                    tracing::warn!(file = %path.display(), "deleted from quarantine: it was not written whole");
                    delete(&path);
                }
            }
        }
        Ok(())
    }

    /// Writes an item; `false` if it is larger than all that may be there. Others go for it.
    pub(super) fn put(&self, item: &Item, settings: &QuarantineSettings) -> io::Result<bool> {
        // Held until it is there: who then seals all of it anew finds it.
        let keys = self.keys.hold();
        let file = item.encode(&keys)?;
        let length = file.len() as u64;
        let size = blocks(length);
        if size > settings.max_size {
            return Ok(false);
        }
        let gone = self.shelf.lock().make_room(|shelf| match shelf {
            _ if shelf.bytes + size > settings.max_size => Some(Scarce::Bytes),
            _ if shelf.items.len() + 1 > settings.max_events => Some(Scarce::Places),
            _ => None,
        });
        gone.into_iter().for_each(|id| self.delete(id));
        let path = self.path(item.id);
        let part = path.with_extension(PART);
        let written = self.write(&part, &file).and_then(|()| std::fs::rename(&part, &path));
        if let Err(error) = written {
            delete(&part);
            return Err(error);
        }
        self.shelf.lock().insert(Summary::of(item, length));
        Ok(true)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // What senders send is for the app alone: nobody else on this machine reads it.
        let open =
            || std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
                open()?
            }
            opened => opened?,
        };
        io::Write::write_all(&mut file, bytes)
    }

    pub(super) fn holds(&self) -> (usize, u64) {
        let shelf = self.shelf.lock();
        (shelf.items.len(), shelf.bytes)
    }

    /// Newest first, from behind `after` on; and where to go on.
    pub(super) fn list(
        &self,
        filter: &Filter,
        after: Option<EventId>,
        limit: usize,
    ) -> (Vec<Summary>, Option<EventId>) {
        let shelf = self.shelf.lock();
        let top = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut matching = shelf
            .items
            .range((Bound::Unbounded, top))
            .rev()
            .map(|(_, item)| item)
            .filter(|i| filter.matches(i));
        let items: Vec<Summary> = matching.by_ref().take(limit).cloned().collect();
        let next = matching.next().and(items.last()).map(|item| item.id);
        (items, next)
    }

    pub(super) fn get(&self, id: EventId) -> io::Result<Option<Item>> {
        if !self.shelf.lock().items.contains_key(&id) {
            return Ok(None);
        }
        match Item::read(&self.path(id), &self.keys.now()) {
            Ok(item) => Ok(Some(item)),
            // Gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove(&self, id: EventId) -> bool {
        let removed = self.shelf.lock().remove(id).is_some();
        if removed {
            self.delete(id);
        }
        removed
    }

    /// Deletes until so many bytes are free, or nothing is left. Returns how many went.
    pub(super) fn shrink_by(&self, bytes: u64) -> usize {
        let gone = {
            let mut shelf = self.shelf.lock();
            let left = shelf.bytes.saturating_sub(bytes);
            shelf.make_room(|shelf| (shelf.bytes > left).then_some(Scarce::Bytes))
        };
        gone.iter().for_each(|id| self.delete(*id));
        gone.len()
    }

    /// Deletes what is past its time. Returns how many went.
    pub(super) fn sweep(&self, now: Timestamp, keep: Option<Duration>) -> usize {
        let past = self.shelf.lock().take_oldest(|oldest| {
            oldest.expires_at <= now || keep.is_some_and(|keep| now.since(oldest.received_at) >= keep)
        });
        past.iter().for_each(|id| self.delete(*id));
        past.len()
    }

    /// Writes every file anew that is not under the key that seals now.
    pub(super) fn reseal(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse::<EventId>().ok()) else {
                continue;
            };
            // Asked for first: who holds the keys may wait to replace a file.
            let keys = self.keys.now();
            // What goes meanwhile must not come back.
            let _alone = self.replacing.lock();
            match self.reseal_one(&path, id, &keys) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Half a write: deleted with the next start, and of no use to anybody.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn reseal_one(&self, path: &Path, id: EventId, keys: &Keyring) -> io::Result<()> {
        let under = item::sealed(path)?.and_then(|record| key_of(&record));
        if under == keys.sealing() {
            return Ok(());
        }
        let file = Item::read(path, keys)?.encode(keys)?;
        let part = self.path(id).with_extension(PART);
        let written = self.write(&part, &file).and_then(|()| std::fs::File::open(&part)?.sync_all());
        if let Err(error) = written.and_then(|()| std::fs::rename(&part, path)) {
            delete(&part);
            return Err(error);
        }
        Ok(())
    }

    fn delete(&self, id: EventId) {
        let _alone = self.replacing.lock();
        delete(&self.path(id));
    }

    fn path(&self, id: EventId) -> PathBuf {
        self.folder.join(id.to_string())
    }
}

fn delete(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, file = %path.display(), "a file of the quarantine could not be deleted")
        }
    }
}
