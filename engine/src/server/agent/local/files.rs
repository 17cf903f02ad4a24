//! How do registrations lie in the data directory?
//!
//! As Consul's do, a small JSON file each, so that an operator can read them and take one away:
//!
//! ```text
//! <data-dir>/services/<name>       {"Version":1,"Service":{…}}   a service, without its checks
//! <data-dir>/checks/<name>         {"Version":1,"Check":{…}}     a check of a service or the node
//! <data-dir>/checks/state/<name>   {"Version":1,"CheckID":…,"Status":…,"Output":…,"Expires":…}
//!
//! <name>    32 hexadecimal digits: XXH3-128 of the id, since an id may be any text of any length
//! Expires   ms since 1970 when a TTL check turns critical; absent for others
//! ```
//!
//! Definitions are written with Consul's field names and read by the code that reads a client's, so
//! a file is checked as strictly as a request. Goldens of all three: `engine/golden/agent`. What a
//! later version writes has another number and is refused by name.
//!
//! Only what clients registered is kept; configuration files say theirs again at each start.

use serde_json::{Map, Value, json};
use xxhash_rust::{xxh3::xxh3_64, xxh3::xxh3_128};

use super::{
    AgentError, CheckDefinition, CheckKind, Local, Origin, ServiceDefinition, Status, TlsOptions,
    state::maintenance, timers::EXPIRED,
};

/// Version of the files' contents.
const VERSION: u64 = 1;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Of the service with this id.
    Service(String),
    /// Of the check with this id.
    Check(String),
    /// Of a check's last status.
    Status(String),
}

/// Something registered, as far as the catalog goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// The service with this id.
    Service(String),
    /// The check with this id.
    Check(String),
}

impl Place {
    /// Folders inside the data directory, in the order in which they must be read.
    pub const FOLDERS: [&str; 3] = ["services", "checks", "checks/state"];

    /// Path inside the data directory.
    pub fn path(&self) -> String {
        let (folder, id) = match self {
            Self::Service(id) => (Self::FOLDERS[0], id),
            Self::Check(id) => (Self::FOLDERS[1], id),
            Self::Status(id) => (Self::FOLDERS[2], id),
        };
        format!("{folder}/{:032x}", xxh3_128(id.as_bytes()))
    }
}

/// What a file is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which file.
    pub place: Place,
    /// Its contents; `None` if there is to be none.
    pub bytes: Option<Vec<u8>>,
    /// Whether it must be on disk before anyone is answered.
    pub kept: Kept,
}

/// How well a file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A promise: flushed before the answer.
    Durably,
    /// A convenience: a check's status. Losing the last of it in a power failure costs a check one
    /// interval of its status, and keeping it durably would cost a flush for each sign of life.
    Loosely,
}

/// Why a file could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not what this version writes.
    #[error("it is not a registration: {0}")]
    Garbled(String),
    /// Written by a later version.
    #[error("it has version {0}, this build reads version {VERSION}")]
    Version(u64),
    /// It says something that cannot be registered.
    #[error("{0}")]
    Refused(#[from] AgentError),
}

impl Local {
    /// The files that have changed, as they are to be now. Each is named until
    /// [`written`](Self::written) says so.
    pub fn take_dirty(&mut self, now_ms: u64, unix_ms: u64) -> Vec<Stored> {
        let places = std::mem::take(&mut self.dirty);
        places
            .into_iter()
            .map(|place| Stored {
                bytes: self.contents(&place, now_ms, unix_ms),
                kept: match place {
                    Place::Status(_) => Kept::Loosely,
                    _ => Kept::Durably,
                },
                place,
            })
            .collect()
    }

    /// Whether a registration waits for its file.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// These files could not be written, and are to be tried again.
    pub fn not_written(&mut self, places: impl IntoIterator<Item = Place>) {
        self.dirty.extend(places);
    }

    fn contents(&self, place: &Place, now_ms: u64, unix_ms: u64) -> Option<Vec<u8>> {
        let document = match place {
            Place::Service(id) => {
                let service = self.services.get(id)?;
                let kept = service.origin == Origin::Client;
                kept.then(
                    || json!({"Version": VERSION, "Service": service_json(&service.definition)}),
                )?
            }
            Place::Check(id) => {
                let check = self.checks.get(id)?;
                let kept = check.origin == Origin::Client;
                kept.then(|| json!({"Version": VERSION, "Check": check_json(&check.definition)}))?
            }
            Place::Status(id) => {
                let check = self.checks.get(id)?;
                let mut document = json!({
                    "Version": VERSION,
                    "CheckID": id,
                    "Status": check.status.as_str(),
                    "Output": check.output,
                });
                if let Some(deadline_ms) = check.deadline_ms {
                    let left_ms = deadline_ms.saturating_sub(now_ms);
                    document["Expires"] = json!(unix_ms + left_ms);
                }
                document
            }
        };
        Some(document.to_string().into_bytes())
    }

    /// Takes in a file of the folder with this position in [`Place::FOLDERS`], as a server does at
    /// its start. Services come first, then checks, then their statuses.
    ///
    /// # Errors
    /// Whatever is wrong with it; nothing has changed then.
    pub fn load(
        &mut self,
        folder: usize,
        bytes: &[u8],
        now_ms: u64,
        unix_ms: u64,
    ) -> Result<(), FileError> {
        let document: Value =
            serde_json::from_slice(bytes).map_err(|error| FileError::Garbled(error.to_string()))?;
        match document["Version"].as_u64() {
            Some(VERSION) => {}
            Some(version) => return Err(FileError::Version(version)),
            None => return Err(FileError::Garbled("no version".into())),
        }
        match folder {
            0 => {
                let service = ServiceDefinition::from_value(&document["Service"])?;
                self.register_service(now_ms, service, Origin::Client, false)?;
            }
            1 => {
                let check = &document["Check"];
                let kind = check["Type"].as_str();
                let check = match kind == Some(CheckKind::Maintenance.name()) {
                    true => maintenance_from(check)?,
                    false => CheckDefinition::from_value(check)?,
                };
                self.register_check(now_ms, check, Origin::Client)?;
            }
            _ => self.load_status(&document, now_ms, unix_ms)?,
        }
        // What was just read need not be written, and the catalog is read anyway.
        self.dirty.clear();
        self.take_unsynced();
        Ok(())
    }

    fn load_status(
        &mut self,
        document: &Value,
        now_ms: u64,
        unix_ms: u64,
    ) -> Result<(), FileError> {
        let text = |name: &str| {
            let text = document[name].as_str();
            text.ok_or_else(|| FileError::Garbled(format!("no {name}")))
        };
        let (id, output) = (text("CheckID")?, text("Output")?);
        let status = Status::parse(text("Status")?)
            .ok_or_else(|| FileError::Garbled("an unknown status".into()))?;
        let Some(check) = self.checks.get_mut(id) else {
            return Err(AgentError::UnknownCheck(id.to_owned()).into());
        };
        let mut found = (status, output.to_owned());
        if let CheckKind::Ttl { ttl_ns } = check.definition.kind {
            let left_ms = document["Expires"]
                .as_u64()
                .map(|at| at.saturating_sub(unix_ms));
            let deadline_ms = match left_ms {
                // A clock that was set back does not make a check live longer than its TTL.
                Some(left_ms @ 1..) => Some(now_ms + left_ms.min(ttl_ns.div_ceil(1_000_000))),
                _ => None,
            };
            let before = std::mem::replace(&mut check.deadline_ms, deadline_ms);
            self.timers.set(id, before, deadline_ms);
            if deadline_ms.is_none() && found.0 != Status::Critical {
                found = (Status::Critical, EXPIRED.to_owned());
            }
        }
        self.set_status(now_ms, id, found.0, found.1);
        Ok(())
    }
}

fn maintenance_from(check: &Value) -> Result<CheckDefinition, FileError> {
    let text = |name: &str| {
        let text = check[name].as_str().map(str::to_owned);
        text.ok_or_else(|| FileError::Garbled(format!("no {name}")))
    };
    Ok(CheckDefinition {
        name: text("Name")?,
        service_id: text("ServiceID")?,
        token: text("Token")?,
        ..maintenance(text("ID")?, &text("Notes")?, "")
    })
}

/// Hash of a document, as `X-Consul-ContentHash` has it.
pub fn content_hash(document: &[u8]) -> String {
    format!("{:016x}", xxh3_64(document))
}

/// A definition as a client would send it, without checks.
fn service_json(service: &ServiceDefinition) -> Value {
    let addresses: Map<String, Value> = service
        .tagged_addresses
        .iter()
        .map(|(name, (address, port))| (name.clone(), json!({"Address": address, "Port": port})))
        .collect();
    json!({
        "Kind": service.kind,
        "ID": service.id,
        "Name": service.name,
        "Tags": service.tags,
        "Address": service.address,
        "Port": service.port,
        "SocketPath": service.socket_path,
        "TaggedAddresses": addresses,
        "Meta": service.meta,
        "Weights": {"Passing": service.weights.passing, "Warning": service.weights.warning},
        "EnableTagOverride": service.enable_tag_override,
        "Proxy": service.proxy,
        "Connect": service.connect,
        "Token": service.token,
    })
}

/// A definition as a client would send it.
fn check_json(check: &CheckDefinition) -> Value {
    let mut document = json!({
        "Type": check.kind.name(),
        "ID": check.id,
        "Name": check.name,
        "Notes": check.notes,
        "ServiceID": check.service_id,
        "Status": check.status.as_str(),
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "SuccessBeforePassing": check.thresholds.success_before_passing,
        "FailuresBeforeWarning": check.thresholds.failures_before_warning,
        "FailuresBeforeCritical": check.thresholds.failures_before_critical,
        "DeregisterCriticalServiceAfter": check.deregister_after_ns,
        "OutputMaxSize": check.output_bytes_max,
        "Token": check.token,
    });
    match &check.kind {
        CheckKind::Ttl { ttl_ns } => document["TTL"] = json!(ttl_ns),
        CheckKind::Tcp(check) => {
            document["TCP"] = json!(check.address);
            if let Some(tls) = &check.tls {
                document["TCPUseTLS"] = json!(true);
                write_tls(&mut document, tls);
            }
        }
        CheckKind::Alias { service_id } => document["AliasService"] = json!(service_id),
        CheckKind::Maintenance => {}
        CheckKind::Http(request) => {
            document["HTTP"] = json!(request.url);
            document["Method"] = json!(request.method);
            document["Header"] = json!(request.headers);
            document["Body"] = json!(request.body);
            document["DisableRedirects"] = json!(request.disable_redirects);
            write_tls(&mut document, &request.tls);
        }
    }
    document
}

fn write_tls(document: &mut Value, tls: &TlsOptions) {
    if *tls != TlsOptions::default() {
        document["TLSServerName"] = json!(tls.server_name);
        document["TLSSkipVerify"] = json!(tls.skip_verify);
    }
}
