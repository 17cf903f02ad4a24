//! Where does a server listen, and whom does it join?

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    ConfigError,
    check::err,
    interfaces::private_ipv4,
    layer::{Layer, Sourced},
};
use crate::server::config::{HttpAddress, UnixSocketOptions};

/// A port number, or `-1` for none.
pub(super) fn port(
    value: Option<Sourced<i64>>,
    flag: &str,
    default: i64,
    zero: bool,
) -> Result<i64, ConfigError> {
    match value {
        Some(Sourced { value: 0, origin }) if !zero => err(format!(
            "{origin}: 0 is not a port: choose 1 to 65535 with {flag}, or -1 for none"
        )),
        Some(Sourced { value, origin }) if !(-1..=65_535).contains(&value) => err(format!(
            "{origin}: {value} is not a port: choose -1 (none) to 65535 with {flag}"
        )),
        value => Ok(value.map_or(default, |value| value.value)),
    }
}

/// An IP address, or one of the templates by which Consul's users name one.
pub(super) fn ip(text: &Sourced<&str>) -> Result<IpAddr, ConfigError> {
    one_ip(text.value, &text.origin)
}

fn one_ip(text: &str, origin: &str) -> Result<IpAddr, ConfigError> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(ip);
    }
    let template = text
        .strip_prefix("{{")
        .and_then(|rest| rest.strip_suffix("}}"));
    match template.map(str::trim) {
        Some("GetPrivateIP") => match private_ipv4().first() {
            Some(ip) => Ok(IpAddr::V4(*ip)),
            None => err(format!(
                "{origin}: {text}: this machine has no private IPv4 address"
            )),
        },
        Some(_) => err(format!(
            "{origin}: {text:?}: of templates curia knows {{{{ GetPrivateIP }}}}: give the address itself"
        )),
        None => err(format!(
            "{origin}: {text:?} is not an IP address: give one such as 10.0.0.1, without a port"
        )),
    }
}

/// The address that other servers are told: a concrete one.
pub(super) fn advertise(layer: &Layer, bind: IpAddr) -> Result<IpAddr, ConfigError> {
    if let Some(text) = layer.text("advertise_addr") {
        let ip = ip(&text)?;
        if ip.is_unspecified() {
            return err(format!(
                "{}: {ip} cannot be reached by other servers: give one address of this machine",
                text.origin
            ));
        }
        return Ok(ip);
    }
    if !bind.is_unspecified() {
        return Ok(bind);
    }
    let found = private_ipv4();
    match found[..] {
        [ip] => Ok(IpAddr::V4(ip)),
        [] => err(format!(
            "-bind={bind}: other servers need one address to reach this one, and this machine has no \
             private IPv4 address: choose one with -bind=IP or -advertise=IP"
        )),
        _ => {
            let found: Vec<String> = found.iter().map(Ipv4Addr::to_string).collect();
            err(format!(
                "-bind={bind}: other servers need one address to reach this one, and this machine has \
                 several: choose one of {} with -bind=IP or -advertise=IP",
                found.join(", ")
            ))
        }
    }
}

/// Where HTTP is served: `addresses.http`, or else `client_addr`; each may be several, with spaces
/// between.
pub(super) fn http_addresses(layer: &Layer) -> Result<Vec<HttpAddress>, ConfigError> {
    let port = port(layer.number("ports.http"), "-http-port", 8500, true)?;
    let given = layer
        .text("addresses.http")
        .or_else(|| layer.text("client_addr"));
    let Some(Sourced { value, origin }) = given else {
        let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, port.max(0) as u16));
        return Ok((port >= 0)
            .then_some(HttpAddress::Tcp(localhost))
            .into_iter()
            .collect());
    };
    let mut addresses: Vec<HttpAddress> = Vec::new();
    let mut texts: Vec<&str> = vec![value.trim()];
    if !value.contains("{{") && value.contains(char::is_whitespace) {
        texts = value.split_whitespace().collect();
    }
    for text in texts {
        let address = match text.strip_prefix("unix://") {
            Some("") => {
                return err(format!(
                    "{origin}: unix:// needs a path: unix:///run/curia.sock"
                ));
            }
            Some(path) => Some(HttpAddress::Unix(PathBuf::from(path))),
            None => {
                let ip = one_ip(text, &origin)?;
                (port >= 0).then(|| HttpAddress::Tcp(SocketAddr::new(ip, port as u16)))
            }
        };
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    Ok(addresses)
}

/// `unix_sockets`.
pub(super) fn unix_sockets(layer: &Layer) -> Result<UnixSocketOptions, ConfigError> {
    let mode = match layer
        .text("unix_sockets.mode")
        .filter(|mode| !mode.value.is_empty())
    {
        None => None,
        Some(Sourced { value, origin }) => match u32::from_str_radix(value, 8) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            _ => {
                return err(format!(
                    "{origin}: {value:?} are no permissions: give them as octal digits, such as \"0770\""
                ));
            }
        },
    };
    Ok(UnixSocketOptions {
        user: number_of(layer.text("unix_sockets.user"), "/etc/passwd", "user")?,
        group: number_of(layer.text("unix_sockets.group"), "/etc/group", "group")?,
        mode,
    })
}

/// The number of a user or group: given, or looked up by name in the machine's own file.
fn number_of(
    text: Option<Sourced<&str>>,
    file: &str,
    what: &str,
) -> Result<Option<u32>, ConfigError> {
    let Some(Sourced { value, origin }) = text.filter(|text| !text.value.is_empty()) else {
        return Ok(None);
    };
    if let Ok(number) = value.parse() {
        return Ok(Some(number));
    }
    let names = fs::read_to_string(file).unwrap_or_default();
    let mut lines = names.lines().map(|line| line.split(':'));
    let found = lines.find_map(|mut fields| {
        let found = fields.next() == Some(value);
        fields.nth(1).filter(|_| found)?.parse().ok()
    });
    match found {
        Some(number) => Ok(Some(number)),
        None => err(format!(
            "{origin}: {file} has no {what} {value:?}: give its name or its number"
        )),
    }
}

/// `host:port` of the servers to join, each once.
pub(super) fn retry_join(layer: &Layer, default_port: u16) -> Result<Vec<String>, ConfigError> {
    let mut addresses: Vec<String> = Vec::new();
    for Sourced { value, origin } in layer.texts("retry_join") {
        for address in value.split(',').map(str::trim) {
            let address = match with_port(address, default_port) {
                Some(address) => address,
                None if address.contains("provider=") => {
                    return err(format!(
                        "{origin}: {address:?}: cloud auto-join is not supported: give HOST or HOST:PORT"
                    ));
                }
                None => {
                    return err(format!(
                        "{origin}: {address:?} is not an address: give HOST or HOST:PORT, several \
                         separated by commas"
                    ));
                }
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

/// `host:port` with the port filled in; `None` for what is neither.
fn with_port(address: &str, default_port: u16) -> Option<String> {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, default_port).to_string());
    }
    if let Ok(address) = address.parse::<SocketAddr>() {
        return (address.port() > 0).then(|| address.to_string());
    }
    let (host, port) = match address.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (address, default_port),
    };
    let plausible = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (!host.is_empty() && host.bytes().all(plausible)).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(file: serde_json::Value) -> Layer {
        let mut layer = Layer::default();
        layer.set_all(file, &|key| key.to_string());
        assert!(layer.errors.is_empty(), "{:?}", layer.errors);
        layer
    }

    #[test]
    fn http_is_served_where_the_keys_say() {
        for (file, addresses) in [
            (json!({}), vec!["127.0.0.1:8500"]),
            (json!({"ports": {"http": -1}}), vec![]),
            (json!({"client_addr": "0.0.0.0"}), vec!["0.0.0.0:8500"]),
            (
                json!({"client_addr": "127.0.0.1 ::1 127.0.0.1", "ports": {"http": 1}}),
                vec!["127.0.0.1:1", "[::1]:1"],
            ),
            (
                json!({"client_addr": "10.0.0.1", "addresses": {"http": "10.0.0.2"}}),
                vec!["10.0.0.2:8500"],
            ),
            (
                json!({"addresses": {"http": "unix:///run/c.sock"}}),
                vec!["unix:///run/c.sock"],
            ),
            (
                json!({"addresses": {"http": "unix:///run/c.sock [::1]"}, "ports": {"http": -1}}),
                vec!["unix:///run/c.sock"],
            ),
        ] {
            let found = http_addresses(&layer(file.clone())).unwrap();
            let found: Vec<String> = found.iter().map(HttpAddress::to_string).collect();
            assert_eq!(found, addresses, "{file}");
        }
        let wrong = http_addresses(&layer(json!({"addresses": {"http": "unix://"}}))).unwrap_err();
        assert_eq!(
            wrong.0,
            "addresses.http: unix:// needs a path: unix:///run/curia.sock"
        );
    }

    #[test]
    fn sockets_have_owners_by_name_or_number_and_octal_permissions() {
        let options = unix_sockets(&layer(json!({
            "unix_sockets": {"user": "root", "group": "12", "mode": "0770"}
        })));
        assert_eq!(
            options.unwrap(),
            UnixSocketOptions {
                user: Some(0),
                group: Some(12),
                mode: Some(0o770)
            }
        );
        let wrong = |file| unix_sockets(&layer(file)).unwrap_err().0;
        assert_eq!(
            wrong(json!({"unix_sockets": {"user": "no such"}})),
            "unix_sockets.user: /etc/passwd has no user \"no such\": give its name or its number"
        );
        assert_eq!(
            wrong(json!({"unix_sockets": {"mode": "0o99"}})),
            "unix_sockets.mode: \"0o99\" are no permissions: give them as octal digits, such as \"0770\""
        );
    }

    #[test]
    fn templates_that_are_not_known_are_named() {
        let wrong = one_ip("{{ GetInterfaceIP \"eth0\" }}", "bind_addr").unwrap_err();
        assert!(wrong.0.contains("give the address itself"), "{wrong}");
        match (
            one_ip("{{GetPrivateIP}}", "bind_addr"),
            private_ipv4().first(),
        ) {
            (Ok(ip), Some(private)) => assert_eq!(ip, IpAddr::V4(*private)),
            (Err(error), None) => assert!(error.0.contains("no private IPv4"), "{error}"),
            (other, _) => panic!("{other:?}"),
        }
    }
}
