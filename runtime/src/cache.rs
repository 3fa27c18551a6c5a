//! A cache of artifacts on disk: bytes by key, safe under concurrent processes, killed writers and damaged files.
//!
//! A key is the SHA-256 of everything the artifact depends on (text of the kernel IR, target, version). A file holds a header with the
//! key and the SHA-256 of the payload; anything that does not verify counts as absent and is replaced. Writers fill a temporary file
//! in the same folder and rename it, so a reader sees a whole entry or none.

use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"attnc\x00\x00\x01";
const HEADER: usize = 8 + 32 + 32;

/// Identity of an artifact.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Hash of the parts; each is prefixed by its length, so that moving a byte from one part to the next changes the key.
    pub fn of(parts: &[&[u8]]) -> Key {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION").as_bytes());
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Key(hash.finalize().into())
    }

    /// Hexadecimal digits, the name of the entry.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.hex())
    }
}

/// A folder of artifacts.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Uses `folder`; it is made when something is stored.
    pub fn at(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into() }
    }

    /// The user's cache folder (`ATTNC_CACHE` overrides it; empty turns caching off). `None` when there is none.
    pub fn user() -> Option<Cache> {
        match std::env::var_os("ATTNC_CACHE") {
            Some(path) if path.is_empty() => None,
            Some(path) => Some(Cache::at(path)),
            None => dirs::cache_dir().map(|d| Cache::at(d.join("attnc"))),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        let hex = key.hex();
        self.folder.join(&hex[..2]).join(&hex[2..])
    }

    /// The artifact, or `None` when it is absent, unreadable or damaged.
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let mut file = fs::read(self.path(key)).ok()?;
        let valid = file.len() >= HEADER && file[..8] == MAGIC[..] && file[8..40] == key.0 && file[40..72] == Sha256::digest(&file[HEADER..])[..];
        valid.then(|| file.split_off(HEADER))
    }

    /// Stores an artifact, replacing a damaged or older entry.
    ///
    /// Errors: those of the file system; nothing but a temporary file of this process can be left behind then.
    pub fn put(&self, key: &Key, payload: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".part-").tempfile_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&key.0)?;
        file.write_all(&Sha256::digest(payload))?;
        file.write_all(payload)?;
        file.as_file().sync_data()?;
        file.persist(&path).map_err(|e| e.error)?;
        Ok(())
    }

    /// The artifact, made and stored when it is not there. A cache that cannot be written does not fail the caller.
    pub fn get_or<E>(&self, key: &Key, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        if let Some(found) = self.get(key) {
            return Ok(found);
        }
        let made = make()?;
        // Full disk or read-only home: the artifact is good all the same.
        let _ = self.put(key, &made);
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cache: &Cache, key: &Key) -> PathBuf {
        cache.path(key)
    }

    #[test]
    fn what_was_stored_comes_back_and_parts_do_not_run_together() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("new"));
        let key = Key::of(&[b"ab", b"c"]);
        assert_ne!(key, Key::of(&[b"a", b"bc"]));
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"payload").unwrap();
        assert_eq!(cache.get(&key).as_deref(), Some(&b"payload"[..]));
    }

    #[test]
    fn damaged_entries_count_as_absent_and_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let (key, other) = (Key::of(&[b"x"]), Key::of(&[b"y"]));
        let payload = vec![7u8; 1000];
        cache.put(&key, &payload).unwrap();
        let whole = fs::read(entry(&cache, &key)).unwrap();
        for length in [0, 5, HEADER - 1, HEADER, whole.len() - 1] {
            fs::write(entry(&cache, &key), &whole[..length]).unwrap();
            assert_eq!(cache.get(&key), None, "{length} bytes");
        }
        for at in [0, 9, 45, HEADER + 3] {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(entry(&cache, &key), &bad).unwrap();
            assert_eq!(cache.get(&key), None, "bit {at}");
        }
        // The entry of another key under this name.
        cache.put(&other, &payload).unwrap();
        fs::copy(entry(&cache, &other), entry(&cache, &key)).unwrap();
        assert_eq!(cache.get(&key), None);
        assert_eq!(cache.get_or(&key, || Ok::<_, ()>(payload.clone())), Ok(payload.clone()));
        assert_eq!(cache.get(&key), Some(payload));
    }

    #[test]
    fn concurrent_writers_and_readers_see_whole_entries() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let key = Key::of(&[b"shared"]);
        let candidates: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; 50_000 + 1000 * usize::from(i)]).collect();
        cache.put(&key, &candidates[0]).unwrap();
        std::thread::scope(|scope| {
            for payload in &candidates {
                scope.spawn(|| (0..20).for_each(|_| cache.put(&key, payload).unwrap()));
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let seen = cache.get(&key).expect("an entry was there from the start");
                        assert!(candidates.contains(&seen));
                    }
                });
            }
        });
        let files: Vec<_> = fs::read_dir(entry(&cache, &key).parent().unwrap()).unwrap().collect();
        assert_eq!(files.len(), 1, "no temporary file is left");
    }

    #[test]
    fn a_killed_writer_leaves_the_old_entry() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let key = Key::of(&[b"k"]);
        cache.put(&key, b"old").unwrap();
        // What a killed process leaves: a temporary file with half an entry.
        fs::write(entry(&cache, &key).with_file_name(".part-killed"), &MAGIC[..4]).unwrap();
        assert_eq!(cache.get(&key).as_deref(), Some(&b"old"[..]));
        cache.put(&key, b"new").unwrap();
        assert_eq!(cache.get(&key).as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn a_folder_that_cannot_be_written_does_not_fail_the_caller() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let cache = Cache::at(&file);
        let key = Key::of(&[b"k"]);
        assert!(cache.put(&key, b"x").is_err());
        assert_eq!(cache.get_or(&key, || Ok::<_, ()>(b"x".to_vec())), Ok(b"x".to_vec()));
    }
}
