//! Whose data directory is this?
//!
//! `identity.json` is written once when the directory is made and once more when its cluster
//! forms, each time beside the old file, flushed, renamed and the directory flushed. It holds
//! what must survive everything but the directory itself: the raft id of this incarnation (so
//! that a wiped server cannot vote twice), the log's id and salt, and which cluster it is of.
//! A lock on the directory keeps a second process out.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use wire::{NodeId, ServerId, Uuid};

use crate::io::{Dir, replace_file};

/// Version of `identity.json` and of everything else in the directory.
pub const DIRECTORY_FORMAT: u32 = 1;
const IDENTITY_FILE: &str = "identity.json";
const NODE_ID_FILE: &str = "node-id";
const LOCK_FILE: &str = "lock";

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process serves from it.
    #[error(
        "data directory {0} is in use by another curia process; stop that one, or give this one its own -data-dir"
    )]
    InUse(PathBuf),
    /// Made by a later version.
    #[error(
        "{path}: format {found} is newer than this build understands ({supported}); run the newer curia on it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Not what was written.
    #[error(
        "{path} is damaged: {why}; restore it from a backup of this very directory, or start this server with an empty -data-dir"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Files of something else.
    #[error(
        "data directory {0} is not empty and has no {IDENTITY_FILE}: it is not curia's; choose another -data-dir"
    )]
    Foreign(PathBuf),
    /// Started with other settings than it was made with.
    #[error(
        "{path}: {what} is {found} in this data directory but {wanted} was asked for; it cannot be changed after the first start"
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Which setting.
        what: &'static str,
        /// In the directory.
        found: String,
        /// Asked for.
        wanted: String,
    },
    /// The operating system refused.
    #[error("{path}: {error}; check -data-dir, its owner and its permissions")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        error: io::Error,
    },
}

/// Id and salt of one executor's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogName {
    /// Random id: a file of another log is never taken for one of this.
    pub id: u64,
    /// Random key of its checksums: a client's value cannot forge a batch.
    pub salt: u64,
}

/// What a data directory says of itself. An unknown field is damage: a field may have lost its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// [`DIRECTORY_FORMAT`].
    pub format: u32,
    /// Node id, canonical text.
    pub node_id: String,
    /// Raft id of this incarnation; random, not 0.
    pub raft_id: u64,
    /// Datacenter it was made for.
    pub datacenter: String,
    /// One log per lane; shard `s` is in log `s mod logs`.
    pub logs: Vec<LogName>,
    /// Cluster it belongs to, canonical text; absent before the cluster formed.
    pub cluster_id: Option<String>,
    /// The configuration the cluster formed with, hexadecimal; absent before.
    pub bootstrap: Option<String>,
    /// CRC32C of the other fields as JSON, hexadecimal.
    #[serde(default)]
    pub checksum: String,
}

/// A data directory that this process holds.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

impl DataDir {
    /// Opens, or makes, the directory and takes its lock.
    ///
    /// `node_id`: wanted node id, `None` to keep or draw one. `logs`: number of logs for a new directory.
    pub fn open(
        path: &Path,
        node_id: Option<NodeId>,
        datacenter: &str,
        logs: u16,
    ) -> Result<Self, IdentityError> {
        let io = |error| IdentityError::Io {
            path: path.to_owned(),
            error,
        };
        fs::create_dir_all(path).map_err(io)?;
        let lock = take_lock(path)?;
        let file = path.join(IDENTITY_FILE);
        let identity = if file.exists() {
            read_identity(&file)?
        } else {
            refuse_foreign(path)?;
            let identity = new_identity(path, node_id, datacenter, logs)?;
            write_identity(path, &identity)?;
            identity
        };
        let mismatch = |what, found: &str, wanted: String| IdentityError::Mismatch {
            path: file.clone(),
            what,
            found: found.to_owned(),
            wanted,
        };
        if let Some(wanted) = node_id
            && identity.node_id != wanted.to_string()
        {
            return Err(mismatch("node_id", &identity.node_id, wanted.to_string()));
        }
        if identity.datacenter != datacenter {
            return Err(mismatch(
                "datacenter",
                &identity.datacenter,
                datacenter.to_owned(),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// Takes the lock of an existing directory and reads its identity: for offline tools. The
    /// directory is held until the file is dropped.
    ///
    /// # Errors
    /// [`IdentityError::InUse`] when a server runs on it, and what reading the identity reports.
    pub fn hold(path: &Path) -> Result<(File, Identity), IdentityError> {
        let identity = Self::peek(path)?;
        Ok((take_lock(path)?, identity))
    }

    /// Reads the identity without taking the lock: for offline tools.
    pub fn peek(path: &Path) -> Result<Identity, IdentityError> {
        read_identity(&path.join(IDENTITY_FILE))
    }

    /// Writes, durably, which cluster this directory belongs to from now on.
    pub fn join_cluster(
        &mut self,
        cluster_id: Uuid,
        configuration: &[u8],
    ) -> Result<(), IdentityError> {
        assert!(
            self.identity.cluster_id.is_none(),
            "a data directory joins one cluster, once"
        );
        let mut identity = self.identity.clone();
        identity.cluster_id = Some(cluster_id.to_string());
        identity.bootstrap = Some(to_hex(configuration));
        write_identity(&self.path, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Folder of log `lane`.
    pub fn log_path(&self, lane: u16) -> PathBuf {
        log_path(&self.path, lane)
    }

    /// Folder of the images.
    pub fn images_path(&self) -> PathBuf {
        self.path.join("images")
    }

    /// What the directory says of itself.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// Folder of log `lane` of a data directory.
pub fn log_path(data_dir: &Path, lane: u16) -> PathBuf {
    data_dir.join(format!("log-{lane}"))
}

impl Identity {
    /// The raft id.
    pub fn server_id(&self) -> ServerId {
        ServerId(self.raft_id)
    }

    /// The node id.
    pub fn node_id(&self) -> NodeId {
        Uuid::parse(&self.node_id).expect("checked when it was read")
    }

    /// The encoded configuration that the cluster formed with.
    pub fn bootstrap(&self) -> Option<bytes::Bytes> {
        self.bootstrap
            .as_deref()
            .map(|hex| from_hex(hex).expect("checked when it was read").into())
    }

    fn checksum(&self) -> String {
        let bare = Self {
            checksum: String::new(),
            ..self.clone()
        };
        let json = serde_json::to_vec(&bare).expect("an identity is plain data");
        format!("{:08x}", crc32c::crc32c(&json))
    }
}

/// Takes the lock of a data directory; it is held as long as the file is.
pub fn take_lock(path: &Path) -> Result<File, IdentityError> {
    let io = |error| IdentityError::Io {
        path: path.join(LOCK_FILE),
        error,
    };
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK_FILE))
        .map_err(io)?;
    // SAFETY: flock on a descriptor that `lock` owns; it takes no pointers.
    let taken = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if taken == 0 {
        return Ok(lock);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        return Err(IdentityError::InUse(path.to_owned()));
    }
    Err(io(error))
}

fn refuse_foreign(path: &Path) -> Result<(), IdentityError> {
    let io = |error| IdentityError::Io {
        path: path.to_owned(),
        error,
    };
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let ours = [LOCK_FILE, NODE_ID_FILE, "lost+found"]
            .iter()
            .any(|ours| name == *ours);
        if !ours && !name.to_string_lossy().ends_with(".tmp") {
            return Err(IdentityError::Foreign(path.to_owned()));
        }
    }
    Ok(())
}

fn new_identity(
    path: &Path,
    node_id: Option<NodeId>,
    datacenter: &str,
    logs: u16,
) -> Result<Identity, IdentityError> {
    let kept = fs::read_to_string(path.join(NODE_ID_FILE)).ok();
    let node_id = match (node_id, kept) {
        (Some(id), _) => id,
        (None, Some(text)) => Uuid::parse(text.trim()).ok_or_else(|| IdentityError::Damaged {
            path: path.join(NODE_ID_FILE),
            why: "it does not hold a 36-character id".to_owned(),
        })?,
        (None, None) => random_uuid(),
    };
    Ok(Identity {
        format: DIRECTORY_FORMAT,
        node_id: node_id.to_string(),
        raft_id: random_u64().max(1),
        datacenter: datacenter.to_owned(),
        logs: (0..logs)
            .map(|_| LogName {
                id: random_u64(),
                salt: random_u64(),
            })
            .collect(),
        cluster_id: None,
        bootstrap: None,
        checksum: String::new(),
    })
}

fn read_identity(file: &Path) -> Result<Identity, IdentityError> {
    let damaged = |why: String| IdentityError::Damaged {
        path: file.to_owned(),
        why,
    };
    let text = fs::read_to_string(file).map_err(|error| IdentityError::Io {
        path: file.to_owned(),
        error,
    })?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    let found = value.get("format").and_then(|f| f.as_u64()).unwrap_or(0) as u32;
    if found > DIRECTORY_FORMAT {
        return Err(IdentityError::Newer {
            path: file.to_owned(),
            found,
            supported: DIRECTORY_FORMAT,
        });
    }
    let identity: Identity = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
    if identity.checksum != identity.checksum() {
        return Err(damaged(
            "its checksum does not match its content".to_owned(),
        ));
    }
    if Uuid::parse(&identity.node_id).is_none() || identity.logs.is_empty() || identity.raft_id == 0
    {
        return Err(damaged("a field is out of range".to_owned()));
    }
    if identity
        .bootstrap
        .as_deref()
        .is_some_and(|hex| from_hex(hex).is_none())
    {
        return Err(damaged("its configuration is not hexadecimal".to_owned()));
    }
    Ok(identity)
}

fn write_identity(path: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let mut identity = identity.clone();
    identity.checksum = identity.checksum();
    let json = serde_json::to_vec_pretty(&identity).expect("an identity is plain data");
    let node_id = identity.node_id.as_bytes();
    Dir::open(path)
        .and_then(|dir| {
            replace_file(&dir, IDENTITY_FILE, &json)?;
            replace_file(&dir, NODE_ID_FILE, node_id)
        })
        .map_err(|error| IdentityError::Io {
            path: path.join(IDENTITY_FILE),
            error,
        })
}

/// A random number from the operating system.
pub fn random_u64() -> u64 {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    u64::from_le_bytes(bytes)
}

/// A random version 4 UUID.
pub fn random_uuid() -> Uuid {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid(bytes)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_reopening_and_keeps_a_second_process_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), None, "dc1", 2).unwrap();
        let identity = first.identity().clone();
        assert!(matches!(
            DataDir::open(dir.path(), None, "dc1", 2),
            Err(IdentityError::InUse(_))
        ));
        drop(first);
        let again = DataDir::open(dir.path(), None, "dc1", 2).unwrap();
        assert_eq!(again.identity().raft_id, identity.raft_id);
        assert_eq!(again.identity().logs, identity.logs);
    }

    #[test]
    fn joining_a_cluster_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(dir.path(), None, "dc1", 1).unwrap();
        let cluster = random_uuid();
        data.join_cluster(cluster, b"members").unwrap();
        drop(data);
        let data = DataDir::open(dir.path(), None, "dc1", 1).unwrap();
        assert_eq!(data.identity().cluster_id, Some(cluster.to_string()));
        assert_eq!(data.identity().bootstrap().unwrap(), b"members"[..]);
    }

    #[test]
    fn a_flipped_byte_a_newer_format_and_foreign_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), None, "dc1", 1).unwrap());
        let file = dir.path().join(IDENTITY_FILE);
        let good = fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, &bad).unwrap();
            let opened = DataDir::open(dir.path(), None, "dc1", 1);
            // White space may change without changing what is said.
            if let Ok(opened) = opened {
                let text: Vec<u8> = good
                    .iter()
                    .copied()
                    .filter(|b| !b.is_ascii_whitespace())
                    .collect();
                let changed: Vec<u8> = bad
                    .iter()
                    .copied()
                    .filter(|b| !b.is_ascii_whitespace())
                    .collect();
                assert!(
                    text == changed,
                    "byte {at} was changed unnoticed: {:?}",
                    opened.identity()
                );
            }
        }
        fs::write(
            &file,
            String::from_utf8(good)
                .unwrap()
                .replace("\"format\": 1", "\"format\": 9"),
        )
        .unwrap();
        assert!(matches!(
            DataDir::open(dir.path(), None, "dc1", 1),
            Err(IdentityError::Newer { found: 9, .. })
        ));

        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("precious.db"), b"x").unwrap();
        assert!(matches!(
            DataDir::open(other.path(), None, "dc1", 1),
            Err(IdentityError::Foreign(_))
        ));
    }

    #[test]
    fn another_datacenter_or_node_id_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), None, "dc1", 1).unwrap());
        assert!(matches!(
            DataDir::open(dir.path(), None, "dc2", 1),
            Err(IdentityError::Mismatch { .. })
        ));
        let other = Some(random_uuid());
        assert!(matches!(
            DataDir::open(dir.path(), other, "dc1", 1),
            Err(IdentityError::Mismatch { .. })
        ));
    }
}
