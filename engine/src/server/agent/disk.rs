//! How do registrations get into the data directory, and out of it again?
//!
//! A file is written beside its place, flushed, and moved there; then its folder is flushed. After
//! a crash there is the old file or the new one. All of this blocks: at the start nothing else runs
//! yet, later it is done aside.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::local::{Kept, Local, Place, Stored};

/// What the name of an unfinished file ends with.
const UNFINISHED: &str = ".tmp";

/// Longest file that is read, bytes: far beyond any that is written.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Files that could not be written, and why the first could not.
#[derive(Debug, Default)]
pub(super) struct Failed {
    pub(super) places: Vec<Place>,
    pub(super) why: Option<String>,
}

/// Writes or removes files below `data`.
pub(super) fn write(data: &Path, files: Vec<Stored>) -> Failed {
    let mut failed = Failed::default();
    for folder in Place::FOLDERS {
        // Refused, the files say so.
        let _ = fs::create_dir_all(data.join(folder));
    }
    let mut folders: Vec<PathBuf> = Vec::new();
    for file in files {
        let path = data.join(file.place.path());
        let done = match &file.bytes {
            Some(bytes) => replace(&path, bytes, file.kept),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        if let Err(error) = done {
            failed
                .why
                .get_or_insert(format!("{}: {error}", path.display()));
            failed.places.push(file.place);
            continue;
        }
        let folder = path.parent().unwrap_or(data);
        let known = folders.iter().any(|known| known == folder);
        if file.kept == Kept::Durably && !known {
            folders.push(folder.to_owned());
        }
    }
    for folder in folders {
        if let Err(error) = File::open(&folder).and_then(|folder| folder.sync_all()) {
            failed
                .why
                .get_or_insert(format!("{}: {error}", folder.display()));
        }
    }
    failed
}

/// Puts `bytes` into a file; when this returns they are there after a crash.
pub(super) fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, Kept::Durably)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn replace(path: &Path, bytes: &[u8], kept: Kept) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    // Registrations may hold tokens: nobody else may read them.
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&name)?;
    file.write_all(bytes)?;
    if kept == Kept::Durably {
        file.sync_all()?;
    }
    fs::rename(&name, path)
}

/// Takes in all registrations below `data`. What cannot be used is named in the log and left where
/// it is: one bad file must not keep a server from its cluster.
pub(super) fn read(data: &Path, local: &mut Local, now_ms: u64, unix_ms: u64) {
    for (number, folder) in Place::FOLDERS.iter().enumerate() {
        let (files, unseen) = files_of(&data.join(folder));
        for why in unseen {
            log::error!(target: "agent", "{why}; what it holds is not registered");
        }
        for path in files {
            if path.extension().is_some_and(|end| end == &UNFINISHED[1..]) {
                // Its write was not answered.
                if let Err(error) = fs::remove_file(&path) {
                    log::warn!(target: "agent", "{}: cannot be removed: {error}", path.display());
                }
                continue;
            }
            let loaded = bytes_of(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| {
                    local
                        .load(number, &bytes, now_ms, unix_ms)
                        .map_err(|error| error.to_string())
                });
            if let Err(why) = loaded {
                log::error!(
                    target: "agent",
                    "{}: not registered: {why}; register it again, or remove the file",
                    path.display()
                );
            }
        }
    }
}

/// Files of a folder in the order of their names, none of one that is not there; and what could not
/// be looked at, with the reason.
fn files_of(folder: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let (mut files, mut unseen) = (Vec::new(), Vec::new());
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return (files, unseen),
        Err(error) => return (files, vec![failed(folder, error)]),
    };
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => {
                unseen.push(failed(folder, error));
                continue;
            }
        };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => files.push(path),
            Ok(_) => {}
            Err(error) => unseen.push(failed(&path, error)),
        }
    }
    files.sort();
    (files, unseen)
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "{length} bytes are too many, at most {FILE_BYTES_MAX}"
        )));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::agent::local::{CheckDefinition, Origin, ServiceDefinition};

    fn registered() -> Local {
        let mut local = Local::new("n1");
        let service = br#"{"Name": "web", "Check": {"TTL": "1m"}}"#;
        let service = ServiceDefinition::from_json(service).unwrap();
        local
            .register_service(0, service, Origin::Client, false)
            .unwrap();
        local
    }

    #[test]
    fn registrations_come_back_and_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut local = registered();
        assert!(write(dir.path(), local.take_dirty(0, 1000)).why.is_none());
        fs::write(dir.path().join("services/garbage"), "{").unwrap();
        fs::write(dir.path().join("services/half.tmp"), "{").unwrap();
        let huge = vec![b' '; FILE_BYTES_MAX as usize + 1];
        fs::write(dir.path().join("checks/huge"), huge).unwrap();
        let mut again = Local::new("n1");
        read(dir.path(), &mut again, 0, 1000);
        assert_eq!(again.services(), local.services());
        assert_eq!(again.checks().keys().collect::<Vec<_>>(), ["service:web"]);
        assert!(dir.path().join("services/garbage").exists());
        assert!(!dir.path().join("services/half.tmp").exists());
        local.deregister_service("web").unwrap();
        assert!(write(dir.path(), local.take_dirty(0, 1000)).why.is_none());
        let mut again = Local::new("n1");
        read(dir.path(), &mut again, 0, 1000);
        assert!(again.services().is_empty() && again.checks().is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_named_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("services"), "not a folder").unwrap();
        let mut local = registered();
        let failed = write(dir.path(), local.take_dirty(0, 1000));
        assert_eq!(failed.places, [Place::Service("web".into())]);
        assert!(failed.why.unwrap().contains("services/"));
        assert!(!local.is_dirty());
        local.not_written(failed.places);
        fs::remove_file(dir.path().join("services")).unwrap();
        assert!(write(dir.path(), local.take_dirty(0, 1000)).why.is_none());
        let check = br#"{"Name": "c", "TTL": "1m"}"#;
        let check = CheckDefinition::from_json(check).unwrap();
        let mut again = Local::new("n1");
        read(dir.path(), &mut again, 0, 1000);
        assert_eq!(again.services().len(), 1);
        again.register_check(0, check, Origin::Client).unwrap();
    }

    /// They were passed over without a word: a registration that could not be looked at was as good
    /// as none, and nobody knew.
    #[test]
    fn what_cannot_be_looked_at_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let services = dir.path().join("services");
        assert_eq!(
            files_of(&services),
            (Vec::new(), Vec::new()),
            "it is not there"
        );
        fs::create_dir_all(services.join("folder")).unwrap();
        fs::write(services.join("a"), "{}").unwrap();
        std::os::unix::fs::symlink("nowhere", services.join("link")).unwrap();
        let (files, unseen) = files_of(&services);
        assert_eq!(files, [services.join("a")]);
        assert_eq!(unseen.len(), 1, "{unseen:?}");
        assert!(
            unseen[0].contains("services/link: No such file"),
            "{unseen:?}"
        );
        let (files, unseen) = files_of(&services.join("a"));
        assert!(
            files.is_empty() && unseen[0].contains("services/a: Not a directory"),
            "{unseen:?}"
        );
    }

    #[test]
    fn files_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), registered().take_dirty(0, 1000));
        let path = dir.path().join(Place::Service("web".into()).path());
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
