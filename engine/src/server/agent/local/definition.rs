//! What did somebody ask to be registered?
//!
//! Services and checks as Consul's `PUT /v1/agent/…/register` takes them, read and checked: whoever
//! holds a definition need not look for mistakes again. Refusals are in Consul's words where it
//! refuses too. Checks that would start a program, or need a protocol that this server does not
//! speak, are refused by name.

use std::{collections::BTreeMap, net::IpAddr};

use http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use super::{
    AgentError, CHECK_OUTPUT_BYTES, OUTPUT_BYTES_MAX, TAGS_MAX,
    fields::{DecodeError, Fields},
    limits::{check_meta, check_name},
    status::{Status, Thresholds},
};
use crate::server::http::go_text::quote;

/// Weights of a service's instance in DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// While all its checks pass: 1 to 65535.
    pub passing: u16,
    /// While one of them warns.
    pub warning: u16,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

/// A service to register. Consul: `structs.ServiceDefinition`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceDefinition {
    /// Empty for an ordinary service.
    pub kind: String,
    /// Unique on this agent; the name where none was given.
    pub id: String,
    /// Never empty.
    pub name: String,
    /// In the order given.
    pub tags: Vec<String>,
    /// Empty for the node's.
    pub address: String,
    /// 0 for none.
    pub port: u16,
    /// Path of a Unix socket.
    pub socket_path: String,
    /// Address and port by name, those that follow from the address included.
    pub tagged_addresses: BTreeMap<String, (String, u16)>,
    /// At most [`META_PAIRS_MAX`](super::META_PAIRS_MAX) pairs.
    pub meta: BTreeMap<String, String>,
    /// In DNS.
    pub weights: Weights,
    /// Whether tags that were changed in the catalog stay.
    pub enable_tag_override: bool,
    /// Consul's `Proxy`, as it came.
    pub proxy: Option<Value>,
    /// Consul's `Connect`, as it came.
    pub connect: Option<Value>,
    /// With which the service is kept in the catalog; empty for the agent's.
    pub token: String,
    /// Each with an id.
    pub checks: Vec<CheckDefinition>,
}

/// A check to register. Consul: `structs.CheckDefinition`.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckDefinition {
    /// Unique on this agent.
    pub id: String,
    /// Never empty.
    pub name: String,
    /// For people.
    pub notes: String,
    /// The service it is of; empty for one of the node.
    pub service_id: String,
    /// Before its first result.
    pub status: Status,
    /// What is done to find out.
    pub kind: CheckKind,
    /// Between two runs, ns; 0 for those that do not run.
    pub interval_ns: u64,
    /// How long a run may take, ns; 0 for the default.
    pub timeout_ns: u64,
    /// Results in a row that change the status.
    pub thresholds: Thresholds,
    /// Its service goes after so long in critical, ns; 0 for never.
    pub deregister_after_ns: u64,
    /// Output that is kept, bytes.
    pub output_bytes_max: usize,
    /// As the service's.
    pub token: String,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// It is told its status, at least once in so many nanoseconds.
    Ttl {
        /// Longer than 0.
        ttl_ns: u64,
    },
    /// It asks by HTTP.
    Http(Box<HttpCheck>),
    /// It connects by TCP.
    Tcp(Box<TcpCheck>),
    /// It is as another service of this agent, and the node, are.
    Alias {
        /// Id of that service; empty for the node alone.
        service_id: String,
    },
    /// It stands for maintenance and stays critical.
    Maintenance,
}

impl CheckKind {
    /// Consul's name for it (`Type`).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ttl { .. } => "ttl",
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Alias { .. } => "alias",
            Self::Maintenance => "maintenance",
        }
    }
}

/// The connection of a TCP check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpCheck {
    /// `host:port`.
    pub address: String,
    /// With TLS on it (`TCPUseTLS`).
    pub tls: Option<TlsOptions>,
}

/// How a check speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// `TLSServerName`: whom the certificate must name; empty for the host.
    pub server_name: String,
    /// `TLSSkipVerify`: any certificate is taken.
    pub skip_verify: bool,
}

/// The request of an HTTP check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// `http://…` or `https://…`.
    pub url: String,
    /// `GET` where none was given.
    pub method: String,
    /// Values by name.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Of the request.
    pub body: String,
    /// Whether a redirection is an answer like any other.
    pub disable_redirects: bool,
    /// Where the URL, or one that it leads to, is of `https`.
    pub tls: TlsOptions,
}

type Checked<T> = Result<T, AgentError>;

fn invalid(text: impl Into<String>) -> AgentError {
    AgentError::Invalid(text.into())
}

impl From<DecodeError> for AgentError {
    fn from(error: DecodeError) -> Self {
        Self::Invalid(format!("Request decode failed: {error}"))
    }
}

/// Reads a body as JSON.
pub(super) fn parse(body: &[u8]) -> Checked<Value> {
    serde_json::from_slice(body).map_err(|error| match body.is_empty() {
        true => DecodeError("EOF".into()).into(),
        false => DecodeError(error.to_string()).into(),
    })
}

impl ServiceDefinition {
    /// Reads the body of a registration.
    ///
    /// # Errors
    /// [`AgentError::Invalid`], in Consul's words where it has some.
    pub fn from_json(body: &[u8]) -> Checked<Self> {
        Self::from_value(&parse(body)?)
    }

    /// As [`from_json`](Self::from_json).
    ///
    /// # Errors
    /// The same.
    pub fn from_value(value: &Value) -> Checked<Self> {
        let fields = Fields::of(value, "")?;
        let name = fields.text("Name")?;
        if name.is_empty() {
            return Err(invalid("Missing service name"));
        }
        let id = match fields.text("ID")? {
            id if id.is_empty() => name.clone(),
            id => id,
        };
        let service = Self {
            kind: fields.text("Kind")?,
            id,
            name,
            tags: fields.texts("Tags")?,
            address: fields.text("Address")?,
            port: port(&fields, "Port")?,
            socket_path: fields.text("SocketPath")?,
            tagged_addresses: fields.map("TaggedAddresses", "an object", |value| {
                let fields = Fields::of(value, "TaggedAddresses.")?;
                let port = fields.number("Port")?.unwrap_or_default();
                let port = u16::try_from(port)
                    .map_err(|_| DecodeError(format!("TaggedAddresses: bad port {port}")))?;
                Ok((fields.text("Address")?, port))
            })?,
            meta: fields.pairs("Meta")?,
            weights: weights(&fields)?,
            enable_tag_override: fields.flag("EnableTagOverride")?,
            proxy: said(fields.raw("Proxy")),
            connect: said(fields.raw("Connect")),
            token: fields.text("Token")?,
            checks: Vec::new(),
        };
        service.check()?;
        let mut service = service.with_default_addresses();
        service.read_checks(&fields)?;
        Ok(service)
    }

    /// What names no token of its own is kept in the catalog with the one of its request.
    pub fn bring(&mut self, token: &str) {
        if self.token.is_empty() {
            self.token = token.to_owned();
        }
        self.checks.iter_mut().for_each(|check| check.bring(token));
    }

    fn check(&self) -> Checked<()> {
        check_name("Service name", &self.name).map_err(invalid)?;
        check_name("Service ID", &self.id).map_err(invalid)?;
        if is_any(&self.address) {
            return Err(invalid("Invalid service address"));
        }
        check_meta(&self.meta).map_err(|why| invalid(format!("Invalid Service Meta: {why}")))?;
        if self.tags.len() > TAGS_MAX {
            let count = self.tags.len();
            return Err(invalid(format!(
                "{count} tags are too many, at most {TAGS_MAX}"
            )));
        }
        if self.port != 0 && !self.socket_path.is_empty() {
            return Err(invalid(
                "Validation failed: a service has a port or a socket path, not both",
            ));
        }
        let sidecar = self.connect.as_ref().and_then(Value::as_object);
        let sidecar = sidecar.is_some_and(|connect| {
            connect.iter().any(|(name, value)| {
                name.replace('_', "").eq_ignore_ascii_case("sidecarservice") && !value.is_null()
            })
        });
        if sidecar {
            return Err(invalid(
                "Connect.SidecarService is not supported: there is no service mesh here; \
                 register the proxy as a service of its own",
            ));
        }
        Ok(())
    }

    /// Consul's tagged addresses that follow from the service's address.
    fn with_default_addresses(mut self) -> Self {
        let names: &[&str] = match self.address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => &["lan_ipv4", "wan_ipv4"],
            Ok(IpAddr::V6(_)) => &["lan_ipv6", "wan_ipv6"],
            Err(_) => &[],
        };
        for name in names {
            self.tagged_addresses
                .entry((*name).to_owned())
                .or_insert((self.address.clone(), self.port));
        }
        self
    }

    fn read_checks(&mut self, fields: &Fields<'_>) -> Checked<()> {
        let one = fields.object("Check")?;
        let given: Vec<Fields<'_>> = one
            .into_iter()
            .filter(|check| !check.says_nothing())
            .chain(fields.objects("Checks")?)
            .collect();
        for (at, check) in given.iter().enumerate() {
            let mut check = CheckDefinition::read(check, |text| {
                match text {
                    // Consul's words for a service's check.
                    BAD_STATUS => "Status for checks must 'passing', 'warning', 'critical'".into(),
                    text => text.into(),
                }
            })?;
            if check.id.is_empty() {
                check.id = match given.len() {
                    1 => format!("service:{}", self.id),
                    _ => format!("service:{}:{}", self.id, at + 1),
                };
            }
            check_name("Check ID", &check.id).map_err(invalid)?;
            if check.name.is_empty() {
                check.name = format!("Service '{}' check", self.name);
            }
            check.service_id.clone_from(&self.id);
            if check.token.is_empty() {
                check.token.clone_from(&self.token);
            }
            self.checks.push(check);
        }
        Ok(())
    }
}

fn said(value: Option<&Value>) -> Option<Value> {
    value
        .filter(|value| value.as_object().is_none_or(|map| !map.is_empty()))
        .cloned()
}

fn is_any(address: &str) -> bool {
    address
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_unspecified())
}

fn port(fields: &Fields<'_>, name: &str) -> Checked<u16> {
    let port = fields.number(name)?.unwrap_or_default();
    u16::try_from(port).map_err(|_| invalid(format!("Invalid service port {port}")))
}

fn weights(fields: &Fields<'_>) -> Checked<Weights> {
    let Some(weights) = fields.object("Weights")? else {
        return Ok(Weights::default());
    };
    let passing = weights.number("Passing")?.unwrap_or_default();
    let warning = weights.number("Warning")?.unwrap_or_default();
    let why = match (passing, warning) {
        (..1, _) => "Passing must be greater than 0",
        (_, ..0) => "Warning must be greater or equal than 0",
        (65_536.., _) | (_, 65_536..) => "DNS Weight must be between 0 and 65535",
        _ => {
            return Ok(Weights {
                passing: passing as u16,
                warning: warning as u16,
            });
        }
    };
    Err(invalid(format!("Invalid Weights: {why}")))
}

const BAD_STATUS: &str = "Bad check status";

/// Kinds of checks that are not run here, by the fields that ask for them.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("Script", "script"),
    ("Args", "script"),
    ("ScriptArgs", "script"),
    ("DockerContainerID", "docker"),
    ("Shell", "script"),
    ("GRPC", "gRPC"),
    ("H2PING", "H2PING"),
    ("UDP", "UDP"),
    ("OSService", "OS service"),
];

impl CheckDefinition {
    /// Reads the body of a registration.
    ///
    /// # Errors
    /// [`AgentError::Invalid`], in Consul's words where it has some.
    pub fn from_json(body: &[u8]) -> Checked<Self> {
        Self::from_value(&parse(body)?)
    }

    /// As [`from_json`](Self::from_json).
    ///
    /// # Errors
    /// The same.
    pub fn from_value(value: &Value) -> Checked<Self> {
        let fields = Fields::of(value, "")?;
        if fields.text("Name")?.is_empty() {
            return Err(invalid("Missing check name"));
        }
        let mut check = Self::read(&fields, str::to_owned)?;
        if check.id.is_empty() {
            check.id.clone_from(&check.name);
        }
        check_name("Check ID", &check.id).map_err(invalid)?;
        Ok(check)
    }

    /// As [`ServiceDefinition::bring`].
    pub fn bring(&mut self, token: &str) {
        if self.token.is_empty() {
            self.token = token.to_owned();
        }
    }

    /// Reads a check that may lack an id and a name. `words` may put an error differently.
    fn read(fields: &Fields<'_>, words: impl Fn(&str) -> String) -> Checked<Self> {
        let status = match &*fields.text("Status")? {
            "" => Status::Critical,
            text => Status::parse(text).ok_or_else(|| invalid(words(BAD_STATUS)))?,
        };
        let wrong = |why: String| invalid(format!("Invalid check: {why}"));
        let kind = Source::read(fields)?.into_kind().map_err(wrong)?;
        let name = fields.text("Name")?;
        check_name("Check name", &name).map_err(invalid)?;
        let runs = matches!(kind, CheckKind::Http(_) | CheckKind::Tcp(_));
        let interval_ns = fields.duration_ns("Interval")?;
        let timeout_ns = fields.duration_ns("Timeout")?;
        Ok(Self {
            id: fields.text_of(&["CheckID", "ID"])?,
            name,
            notes: fields.text("Notes")?,
            service_id: fields.text("ServiceID")?,
            status,
            kind,
            interval_ns: match runs {
                true => positive(interval_ns).max(INTERVAL_NS_MIN),
                false => 0,
            },
            timeout_ns: positive(timeout_ns),
            thresholds: thresholds(fields)?,
            deregister_after_ns: match fields.duration_ns("DeregisterCriticalServiceAfter")? {
                ..=0 => 0,
                after => positive(after).max(DEREGISTER_NS_MIN),
            },
            output_bytes_max: match fields.number("OutputMaxSize")?.unwrap_or_default() {
                0 => CHECK_OUTPUT_BYTES,
                ..0 => return Err(wrong("MaxOutputMaxSize must be positive".into())),
                bytes => OUTPUT_BYTES_MAX.min(bytes as usize),
            },
            token: fields.text("Token")?,
        })
    }
}

/// Checks run at most this often, as in Consul.
const INTERVAL_NS_MIN: u64 = 1_000_000_000;

/// Services are taken out for being critical no sooner than this, as in Consul.
const DEREGISTER_NS_MIN: u64 = 60_000_000_000;

fn positive(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or(0)
}

fn thresholds(fields: &Fields<'_>) -> Checked<Thresholds> {
    let number = |name: &str| -> Checked<Option<u32>> {
        let Some(number) = fields.number(name)? else {
            return Ok(None);
        };
        u32::try_from(number)
            .map(Some)
            .map_err(|_| invalid(format!("Invalid check: {name} must not be negative")))
    };
    let critical = number("FailuresBeforeCritical")?.unwrap_or(0);
    let warning = number("FailuresBeforeWarning")?.filter(|count| *count > 0);
    if warning.is_some_and(|warning| warning > critical) {
        return Err(invalid(
            "Invalid check: FailuresBeforeWarning can't be higher than FailuresBeforeCritical",
        ));
    }
    Ok(Thresholds {
        success_before_passing: number("SuccessBeforePassing")?.unwrap_or(0),
        failures_before_warning: warning.unwrap_or(critical),
        failures_before_critical: critical,
    })
}

/// The fields that say what a check does.
struct Source {
    ttl_ns: i64,
    interval_ns: i64,
    http: String,
    tcp: String,
    alias: Option<String>,
    alias_node: String,
    unsupported: Option<&'static str>,
    tcp_tls: bool,
    tls: TlsOptions,
    request: HttpCheck,
}

impl Source {
    fn read(fields: &Fields<'_>) -> Checked<Self> {
        let alias = fields.text("AliasService")?;
        let alias_node = fields.text("AliasNode")?;
        let asks_for = |name: &str| {
            let says = |value: &Value| match value {
                Value::String(text) => !text.is_empty(),
                Value::Array(list) => !list.is_empty(),
                _ => true,
            };
            fields.raw(name).is_some_and(says)
        };
        let unsupported = UNSUPPORTED.iter().find(|(name, _)| asks_for(name));
        let method = fields.text("Method")?;
        let http = fields.text("HTTP")?;
        let tls = TlsOptions {
            server_name: fields.text("TLSServerName")?,
            skip_verify: fields.flag("TLSSkipVerify")?,
        };
        Ok(Self {
            ttl_ns: fields.duration_ns("TTL")?,
            interval_ns: fields.duration_ns("Interval")?,
            tcp: fields.text("TCP")?,
            alias: (!alias.is_empty() || !alias_node.is_empty()).then_some(alias),
            alias_node,
            unsupported: unsupported.map(|(_, kind)| *kind),
            tcp_tls: fields.flag("TCPUseTLS")?,
            tls: tls.clone(),
            request: HttpCheck {
                tls,
                url: http.clone(),
                method: if method.is_empty() {
                    "GET".into()
                } else {
                    method
                },
                headers: fields.headers("Header")?,
                body: fields.text("Body")?,
                disable_redirects: fields.flag("DisableRedirects")?,
            },
            http,
        })
    }

    /// Consul's `CheckType.Validate`, in its words, and what is not done here.
    fn into_kind(self) -> Result<CheckKind, String> {
        if let Some(kind) = self.unsupported {
            return Err(format!(
                "{kind} checks are not supported: this agent runs TTL, HTTP and TCP checks"
            ));
        }
        let runs = !self.http.is_empty() || !self.tcp.is_empty();
        let why = match (runs, self.alias.is_some()) {
            _ if self.interval_ns > 0 && self.ttl_ns > 0 => {
                "Interval and TTL cannot both be specified"
            }
            (true, _) if self.interval_ns <= 0 => {
                "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks"
            }
            (true, true) => "Interval cannot be set for Alias checks",
            (_, true) if self.ttl_ns > 0 => "TTL must be not be set for Alias checks",
            (false, false) if self.ttl_ns <= 0 => "TTL must be > 0 for TTL checks",
            _ if !self.http.is_empty() && !self.tcp.is_empty() => {
                "a check has one of HTTP and TCP, not both"
            }
            _ if !self.alias_node.is_empty() => {
                "AliasNode is not supported: a check is an alias of a service of its own agent"
            }
            _ => "",
        };
        if !why.is_empty() {
            return Err(why.to_owned());
        }
        if let Some(service_id) = self.alias {
            return Ok(CheckKind::Alias { service_id });
        }
        if !self.http.is_empty() {
            check_request(&self.request)?;
            return Ok(CheckKind::Http(Box::new(self.request)));
        }
        if !self.tcp.is_empty() {
            check_address(&self.tcp)?;
            return Ok(CheckKind::Tcp(Box::new(TcpCheck {
                address: self.tcp,
                tls: self.tcp_tls.then_some(self.tls),
            })));
        }
        Ok(CheckKind::Ttl {
            ttl_ns: positive(self.ttl_ns),
        })
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let port = address.rsplit_once(':').map(|(_, port)| port);
    match port.map(str::parse::<u16>) {
        Some(Ok(1..)) => Ok(()),
        _ => Err(format!("TCP {} is not host:port", quote(address))),
    }
}

fn check_request(request: &HttpCheck) -> Result<(), String> {
    let url: Uri = request
        .url
        .parse()
        .map_err(|error| format!("HTTP {}: {error}", quote(&request.url)))?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => {}
        _ => {
            return Err(format!(
                "HTTP {} is neither http://host/… nor https://host/…",
                quote(&request.url)
            ));
        }
    }
    Method::from_bytes(request.method.as_bytes())
        .map_err(|_| format!("Method {} is not one", quote(&request.method)))?;
    for (name, values) in &request.headers {
        let bad = HeaderName::from_bytes(name.as_bytes()).is_err()
            || values.iter().any(|v| HeaderValue::from_str(v).is_err());
        if bad {
            return Err(format!("Header {} cannot be sent", quote(name)));
        }
    }
    Ok(())
}
