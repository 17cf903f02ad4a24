//! How is a service looked at: does it take a connection, and what does it answer?
//!
//! One run of a check. It ends within its timeout whatever happens, and what it says is what Consul
//! says: operators' alerts match on these texts.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, FutureExt, future::poll_fn};
use glommio::{Task, timer::sleep};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};

use super::{
    client_io::ClientIo,
    local::{HttpCheck, Status, TcpCheck, TlsOptions},
    names::Names,
    tls::Trust,
};
use crate::server::{
    Stream,
    dial::{DialError, connect},
    http::go_text::quote,
};

/// Longest run of a check that does not say otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Redirections that are followed, as Go's client does.
const REDIRECTS_MAX: usize = 10;

/// Bytes of an answer that are read; what is kept is the end of them.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a run found.
pub(super) type Finding = (Status, String);

/// How long a run may take, by the check's timeout and interval.
pub(super) fn timeout(timeout_ns: u64, interval_ns: u64) -> Duration {
    match timeout_ns {
        0 => TIMEOUT_DEFAULT.min(Duration::from_nanos(interval_ns)),
        given => Duration::from_nanos(given),
    }
}

/// What all checks of an agent use to reach services.
pub(super) struct Reach {
    pub(super) names: Names,
    pub(super) trust: Trust,
}

/// Connects, with TLS where the check wants it.
pub(super) async fn tcp(reach: &Reach, check: &TcpCheck, timeout: Duration) -> Finding {
    let address = &check.address;
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    let run = async {
        let reached = async {
            let stream = reach.connect(address).await?;
            match &check.tls {
                Some(tls) => reach.secure(stream, host, tls).await.map(drop),
                None => Ok(()),
            }
        };
        match reached.await {
            Ok(()) => (Status::Passing, format!("TCP connect {address}: Success")),
            Err(why) => (Status::Critical, why),
        }
    };
    let late = async {
        sleep(timeout).await;
        (Status::Critical, format!("dial tcp {address}: i/o timeout"))
    };
    run.or(late).await
}

/// Asks by HTTP: 2xx is passing, 429 warning, anything else critical.
pub(super) async fn http(
    reach: &Reach,
    check: &HttpCheck,
    output_bytes_max: usize,
    timeout: Duration,
) -> Finding {
    let (method, url) = (&check.method, &check.url);
    let failed = |why: &str| {
        let mut name = method.to_ascii_lowercase();
        name[..1].make_ascii_uppercase();
        (Status::Critical, format!("{name} {}: {why}", quote(url)))
    };
    let run = async {
        match exchange(reach, check, output_bytes_max).await {
            Err(why) => failed(&why),
            Ok((status, output)) => {
                let found = match status {
                    StatusCode::TOO_MANY_REQUESTS => Status::Warning,
                    status if status.is_success() => Status::Passing,
                    _ => Status::Critical,
                };
                (
                    found,
                    format!("HTTP {method} {url}: {status} Output: {output}"),
                )
            }
        }
    };
    let late = async {
        sleep(timeout).await;
        failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
    };
    run.or(late).await
}

impl Reach {
    /// Connects; the error is said as Go does.
    async fn connect(&self, address: &str) -> Result<Stream, String> {
        let mut why = format!("dial tcp: lookup {address}: no such host");
        for resolved in self.names.resolve(address).await? {
            match connect(resolved, None).await {
                Ok((_, stream)) => return Ok(stream),
                Err(error) => why = format!("dial tcp {resolved}: connect: {}", plain(&error)),
            }
        }
        Err(why)
    }

    /// Speaks TLS to a service on `host`.
    async fn secure(
        &self,
        stream: Stream,
        host: &str,
        tls: &TlsOptions,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + 'static, String> {
        let name = match &*tls.server_name {
            "" => host,
            name => name,
        };
        self.trust.connect(stream, name, tls.skip_verify).await
    }
}

fn plain(error: &DialError) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// Asks, follows redirections, and takes in the answer's status and the end of its body.
async fn exchange(
    reach: &Reach,
    check: &HttpCheck,
    output_bytes_max: usize,
) -> Result<(StatusCode, String), String> {
    let mut method = Method::from_bytes(check.method.as_bytes()).map_err(|e| e.to_string())?;
    let mut url: Uri = check
        .url
        .parse()
        .map_err(|e: http::uri::InvalidUri| e.to_string())?;
    let mut body = Bytes::copy_from_slice(check.body.as_bytes());
    for _ in 0..=REDIRECTS_MAX {
        let request = request(check, &method, &url, body.clone())?;
        let place = Place::of(&url)?;
        let stream = reach.connect(&place.address).await?;
        let answer = match place.tls {
            false => send(stream, request).await?,
            true => {
                let stream = reach.secure(stream, &place.host, &check.tls).await?;
                send(stream, request).await?
            }
        };
        let status = answer.status();
        let next = match check.disable_redirects {
            true => None,
            false => redirection(status, answer.headers().get(header::LOCATION), &url)?,
        };
        let Some(next) = next else {
            let output = tail(answer.into_body(), output_bytes_max).await?;
            return Ok((status, output));
        };
        if status.as_u16() < 307 && method != Method::HEAD {
            (method, body) = (Method::GET, Bytes::new());
        }
        url = next;
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects"))
}

/// Sends a request; its answer, whose body holds the connection.
async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Held>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(ClientIo(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Ends with the answer that holds it, taken in or not.
    let connection = glommio::spawn_local(async move {
        // Its error is the answer's.
        let _ = connection.await;
    });
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok(answer.map(|body| Held {
        body,
        _connection: connection,
    }))
}

/// An answer's body, and what brings it.
struct Held {
    body: Incoming,
    _connection: Task<()>,
}

/// Where a URL's service lies.
#[derive(Debug, PartialEq)]
struct Place {
    host: String,
    /// `host:port`.
    address: String,
    tls: bool,
}

impl Place {
    fn of(url: &Uri) -> Result<Self, String> {
        let (tls, port) = match url.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(format!("{url}: only http and https are supported")),
        };
        let host = url.host().ok_or_else(|| format!("{url}: no host"))?;
        let port = url.port_u16().unwrap_or(port);
        Ok(Self {
            host: host.to_owned(),
            address: format!("{host}:{port}"),
            tls,
        })
    }
}

fn request(
    check: &HttpCheck,
    method: &Method,
    url: &Uri,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    for (name, values) in &check.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
        for value in values {
            let value = HeaderValue::from_str(value).map_err(|e| e.to_string())?;
            headers.append(name.clone(), value);
        }
    }
    let host = HeaderValue::from_str(authority.rsplit('@').next().unwrap_or_default());
    let host = host.map_err(|error| error.to_string())?;
    for (name, value) in [
        (header::HOST, host),
        (
            header::USER_AGENT,
            HeaderValue::from_static("Consul Health Check"),
        ),
        (
            header::ACCEPT,
            HeaderValue::from_static("text/plain, text/*, */*"),
        ),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ] {
        headers.entry(name).or_insert(value);
    }
    Ok(request)
}

/// Where an answer sends its reader, if it does.
fn redirection(
    status: StatusCode,
    location: Option<&HeaderValue>,
    from: &Uri,
) -> Result<Option<Uri>, String> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = location.and_then(|location| location.to_str().ok()) else {
        return Err(format!("{status} response missing Location header"));
    };
    let absolute = match location {
        there if there.contains("://") => there.to_owned(),
        path => {
            let authority = from.authority().map_or("", |authority| authority.as_str());
            let folder = match path.starts_with('/') {
                true => "",
                false => from
                    .path()
                    .rsplit_once('/')
                    .map_or("", |(folder, _)| folder),
            };
            let slash = if path.starts_with('/') { "" } else { "/" };
            let scheme = from.scheme_str().unwrap_or("http");
            format!("{scheme}://{authority}{folder}{slash}{path}")
        }
    };
    match absolute.parse() {
        Ok(url) => Ok(Some(url)),
        Err(_) => Err(format!(
            "failed to parse Location header {}",
            quote(location)
        )),
    }
}

/// The last bytes of a body.
async fn tail(mut held: Held, bytes_max: usize) -> Result<String, String> {
    let (mut kept, mut read) = (Vec::new(), 0);
    while read < ANSWER_BYTES_MAX {
        let frame = poll_fn(|cx| Pin::new(&mut held.body).poll_frame(cx)).await;
        match frame {
            None => break,
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                read += data.len();
                kept.extend_from_slice(&data);
                if kept.len() > 2 * bytes_max {
                    kept.drain(..kept.len() - bytes_max);
                }
            }
        }
    }
    kept.drain(..kept.len().saturating_sub(bytes_max));
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_no_longer_than_its_interval_unless_it_says_so() {
        let second = 1_000_000_000;
        assert_eq!(timeout(0, 5 * second), Duration::from_secs(5));
        assert_eq!(timeout(0, 60 * second), TIMEOUT_DEFAULT);
        assert_eq!(timeout(30 * second, 5 * second), Duration::from_secs(30));
    }

    #[test]
    fn redirections_are_resolved_against_where_they_came_from() {
        let from: Uri = "http://a:81/x/y?z".parse().unwrap();
        let to = |location: &'static str| {
            let location = HeaderValue::from_static(location);
            redirection(StatusCode::FOUND, Some(&location), &from)
                .map(|url| url.map(|url| url.to_string()))
        };
        for (location, url) in [
            ("http://b/c", "http://b/c"),
            ("/c?d", "http://a:81/c?d"),
            ("c", "http://a:81/x/c"),
        ] {
            assert_eq!(to(location), Ok(Some(url.to_owned())));
        }
        assert!(redirection(StatusCode::FOUND, None, &from).is_err());
        assert_eq!(redirection(StatusCode::OK, None, &from), Ok(None));
        let from: Uri = "https://a/x".parse().unwrap();
        let location = HeaderValue::from_static("/c");
        let to = redirection(StatusCode::FOUND, Some(&location), &from);
        assert_eq!(to.unwrap().unwrap(), "https://a/c", "it stays secure");
    }

    #[test]
    fn urls_name_a_place_and_whether_it_speaks_tls() {
        for (url, address, tls) in [
            ("http://[::1]/", "[::1]:80", false),
            ("https://web.example/x", "web.example:443", true),
            ("https://127.0.0.1:8443", "127.0.0.1:8443", true),
        ] {
            let place = Place::of(&url.parse().unwrap()).unwrap();
            assert_eq!((&*place.address, place.tls), (address, tls), "{url}");
        }
        assert!(Place::of(&"ftp://a/".parse().unwrap()).is_err());
    }
}
