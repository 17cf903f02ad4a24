//! Does a registration come back from its file as it was, and is any other file refused?
//!
//! `{what, …}`: a body as a client registers it, which is kept in files and loaded by another start;
//! or the bytes of a file.

use engine::server::agent::local::{CheckDefinition, Local, Origin, Place, ServiceDefinition};

use crate::feed::Feed;

const UNIX_MS: u64 = 1_700_000_000_000;

/// Registers or loads.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    match feed.below(5) {
        what @ 0..3 => {
            let mut local = Local::new("n1");
            for folder in 0..=what {
                let bytes = match folder == what {
                    true => feed.rest(),
                    false => feed.bytes(600),
                };
                let _ = local.load(folder, bytes, 5, UNIX_MS);
            }
            comes_back(&mut local);
        }
        3 => {
            if let Ok(service) = ServiceDefinition::from_json(feed.rest()) {
                let mut local = Local::new("n1");
                let done = local.register_service(5, service, Origin::Client, false);
                done.expect("one service is not too many");
                comes_back(&mut local);
            }
        }
        _ => {
            if let Ok(check) = CheckDefinition::from_json(feed.rest()) {
                let mut local = Local::new("n1");
                let registered = local.register_check(5, check, Origin::Client);
                if registered.is_ok() {
                    comes_back(&mut local);
                }
            }
        }
    }
}

/// What is kept is loaded by a server that starts at the same moment, and is the same.
fn comes_back(local: &mut Local) {
    let ids = |local: &Local| -> Vec<Place> {
        let services = local.services().keys().cloned().map(Place::Service);
        let checks = local.checks().keys().cloned().map(Place::Check);
        let statuses = local.checks().keys().cloned().map(Place::Status);
        services.chain(checks).chain(statuses).collect()
    };
    let places = ids(local);
    local.not_written(places);
    let mut files = local.take_dirty(5, UNIX_MS);
    files.sort_by(|a, b| a.place.cmp(&b.place));
    let mut again = Local::new("n1");
    for file in &files {
        let folder = match &file.place {
            Place::Service(_) => 0,
            Place::Check(_) => 1,
            Place::Status(_) => 2,
        };
        let bytes = file.bytes.as_ref().expect("all of it is a client's");
        let text = String::from_utf8_lossy(bytes);
        let loaded = again.load(folder, bytes, 5, UNIX_MS);
        loaded.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let shown = |local: &Local| format!("{:#?} {:#?}", local.services(), local.checks());
    assert_eq!(shown(local), shown(&again));
}
