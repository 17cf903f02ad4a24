//! One executor's HTTP service: how does a connection become requests, and requests answers?
//!
//! hyper parses and frames; [`answer`] is the walk of one request: route, admit, parse, read the
//! body, ask the gateway. Nothing about a request outlives its answer.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    rc::Rc,
    sync::Arc,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use wire::QueryBody;

use crate::server::Stream;

use super::{
    acl::{self, Guard, Judge, Need, Rights, Who},
    admission::{Admitted, Load},
    agent, call,
    failure::Refusal,
    json::Style,
    kv,
    limits::{BUFFER_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX, HttpLimits, LINGER_BYTES_MAX},
    link::{HyperIo, Link, Phase},
    params::{Freshness, Params},
    path::{self, Endpoint, Route},
    reads,
    reply::{Content, Reply, ReplyBody, X_CONSUL_DEFAULT_ACL_POLICY},
    rules::HttpRules,
    streams::Stopping,
    sweep::Links,
    txn,
};
use crate::server::{
    gateway::{AnswerBody, Gateway, RowStream, ServerInfo},
    meters::{Counted, Meter},
};

/// One executor's HTTP service. Cheap to clone.
pub struct HttpService<G: Gateway>(Rc<Inner<G>>);

impl<G: Gateway> Clone for HttpService<G> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What the handlers of one executor share.
pub(super) struct Inner<G: Gateway> {
    pub(super) gateway: G,
    pub(super) info: ServerInfo,
    /// Both may change while the server runs.
    limits: Cell<HttpLimits>,
    rules: RefCell<Rc<HttpRules>>,
    pub(super) load: Rc<Load>,
    pub(super) meter: Meter,
    links: Rc<Links>,
    /// Not there with ACLs off.
    pub(super) guard: Option<Rc<Guard>>,
    pub(super) stopping: Rc<Stopping>,
}

impl<G: Gateway> HttpService<G> {
    /// A service that asks `gateway`, within `limits`. Call it on the executor it is for.
    pub fn new(gateway: G, limits: HttpLimits) -> Self {
        let load = Rc::new(Load::default());
        let info = gateway.info();
        let (datacenter, node) = (&info.datacenter, &info.node_name);
        let guard = match &info.tokens {
            Some(tokens) => Guard::with_tokens(&info.acl, Arc::clone(tokens), datacenter, node),
            None => Guard::new(&info.acl, datacenter, node),
        };
        Self(Rc::new(Inner {
            meter: gateway.meter(),
            guard,
            info,
            gateway,
            links: Links::new(&limits, load.clone()),
            limits: Cell::new(limits),
            rules: RefCell::default(),
            load,
            stopping: Rc::default(),
        }))
    }

    /// Changes bounds and rules; requests from now on are held to them. Timeouts stay as they are.
    pub fn configure(&self, limits: HttpLimits, rules: HttpRules) {
        self.0.limits.set(limits);
        *self.0.rules.borrow_mut() = Rc::new(rules);
    }

    /// Serves one connection to its end: spawn it as a task of its own.
    pub fn serve_connection(&self, stream: Stream) -> impl Future<Output = ()> + 'static {
        connection(self.0.clone(), stream)
    }

    /// Tells a client that it has too many connections, and ends this one.
    pub fn turn_away(&self, stream: Stream) -> impl Future<Output = ()> + 'static {
        let inner = self.0.clone();
        async move {
            let link = Rc::new(Link::new(stream, inner.links.clock()));
            let Some(_registered) = inner.links.register(&link) else {
                return;
            };
            inner.refuse_connection(&link, CROWDED).await;
        }
    }

    /// Judges what this server's agent tells the catalog.
    pub(in super::super) fn judge(&self) -> Judge<G> {
        Judge::new(self.0.guard.clone(), self.0.gateway.clone())
    }

    /// Number of blocking queries that wait or are being answered, and of watches.
    pub fn waiting(&self) -> usize {
        self.0.load.waiters.get() + self.0.load.watchers.get()
    }

    /// Number of open connections.
    pub fn connections(&self) -> usize {
        self.0.load.connections.get()
    }

    /// Ends idle connections now and the others after the answer they wait for.
    pub fn stop(&self) {
        self.0.stopping.begin();
        self.0.links.cut_idle();
    }

    /// Counters and gauges of this executor's service by name.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        self.0.metrics()
    }
}

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Length: 63\r\n\r\n\
    Too many connections to this server, try again or elsewhere now";

/// In the words of Consul's connection limit.
const CROWDED: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    Content-Type: text/plain\r\nConnection: close\r\nContent-Length: 81\r\n\r\n\
    Your IP is issuing too many concurrent connections, please rate limit your calls\n";

const LATE: &str = "HTTP/1.1 408 Request Timeout\r\n\
    Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\
    Content-Length: 40\r\n\r\n\
    Request header was not received in time.";

/// The whole answer to a request that hyper could not read, for a reason in its words.
fn unreadable(status: u16, why: &str) -> String {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let text = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => format!(
            "Request header too large: at most {HEADER_BYTES_MAX} bytes, request line included, and \
             {HEADERS_MAX} headers"
        ),
        _ => format!("Malformed request: {why}"),
    };
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{text}"
    )
}

async fn connection<G: Gateway>(inner: Rc<Inner<G>>, stream: Stream) {
    let link = Rc::new(Link::new(stream, inner.links.clock()));
    let Some(_registered) = inner.links.register(&link) else {
        return;
    };
    if inner.load.connections.get() > inner.limits().connections_max {
        return inner.refuse_connection(&link, FULL).await;
    }
    let service = service_fn(|request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        respond(inner.clone(), link.clone(), parts, body)
    });
    let ended = http1::Builder::new()
        .title_case_headers(true)
        // A client that has sent its request may close its sending side and still get its answer.
        .half_close(true)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .header_read_timeout(None)
        .serve_connection(HyperIo(link.clone()), service)
        .await;
    let mut why = String::new();
    if let Err(error) = ended {
        log::debug!(target: "agent.http", "connection ended: error={error}");
        why = error.to_string();
    }
    let answer = match (link.late_in(), link.unreadable()) {
        (Some(Phase::Header), _) => Some(LATE.into()),
        (_, Some(status)) => Some(unreadable(status, &why)),
        _ => None,
    };
    if let Some(answer) = answer
        && link.send(answer.as_bytes()).await.is_err()
    {
        return;
    }
    link.close(LINGER_BYTES_MAX).await;
}

/// Marks the connection as serving a request until the answer's body has been taken.
pub(super) struct Serving(Rc<Link>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

async fn respond<G: Gateway>(
    inner: Rc<Inner<G>>,
    link: Rc<Link>,
    parts: Parts,
    body: Incoming,
) -> Result<Response<ReplyBody<G::Rows>>, Infallible> {
    link.enter(Phase::Serving);
    let serving = Serving(link.clone());
    let mut admitted = None;
    let rules = inner.rules.borrow().clone();
    let let_in = rules.admit(&parts.method, parts.uri.path(), || link.client_ip());
    let answered = match let_in {
        Ok(()) => answer(&inner, &link, &parts, body, &mut admitted).await,
        Err(refusal) => Err(refusal),
    };
    let mut reply = answered.unwrap_or_else(Reply::refusal);
    inner.meter.count(Counted::Request);
    if reply.status.is_server_error() {
        inner.meter.count(Counted::RequestError);
    }
    if let Some(guard) = &inner.guard {
        let policy = HeaderValue::from_static(guard.default_policy());
        reply = reply.header(X_CONSUL_DEFAULT_ACL_POLICY, policy);
    }
    for (name, value) in &rules.response_headers {
        reply.headers.insert(name.clone(), value.clone());
    }
    if inner.stopping.has_begun() {
        reply = reply.header(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(reply.into_response((serving, admitted)))
}

async fn answer<G: Gateway>(
    inner: &Inner<G>,
    link: &Rc<Link>,
    parts: &Parts,
    body: Incoming,
    admitted: &mut Option<Admitted>,
) -> Result<Reply<G::Rows>, Refusal> {
    let method = &parts.method;
    let route = path::parse(parts.uri.path());
    let only;
    let allowed: &[Method] = match &route {
        Route::Kv(_) => &[Method::GET, Method::PUT, Method::DELETE],
        Route::Txn => &[Method::PUT],
        Route::Fixed(endpoint) => {
            only = [endpoint.method()];
            &only
        }
        // Their endpoints know more methods, and each its own.
        _ => std::slice::from_ref(method),
    };
    if let Some(reply) = not_allowed(method, allowed) {
        return Ok(reply);
    }
    // A connection keeps room for the largest of these as long as it lives: the rare and the large
    // are in boxes.
    match route {
        Route::Kv(key) => kv::answer(inner, link, parts, body, admitted, key).await,
        Route::Txn => Box::pin(txn::answer(inner, link, parts, body, admitted)).await,
        Route::Family(family, rest) => {
            let call = call::answer(inner, link, parts, body, admitted, family, &rest);
            Box::pin(call).await
        }
        Route::Fixed(endpoint) => Box::pin(fixed(inner, parts, admitted, endpoint)).await,
        route => other(method, route, parts.uri.query()),
    }
}

async fn fixed<G: Gateway>(
    inner: &Inner<G>,
    parts: &Parts,
    admitted: &mut Option<Admitted>,
    endpoint: Endpoint,
) -> Result<Reply<G::Rows>, Refusal> {
    let params = Params::parse(parts.uri.query(), &inner.info.datacenter)?;
    *admitted = Some(Admitted::new(&inner.load, &inner.limits(), 0)?);
    inner.check(endpoint, parts, &params).await?;
    let style = inner.style(params.pretty);
    let document = match endpoint {
        Endpoint::Reload => {
            let reloaded = inner.gateway.reload().await;
            reloaded.map_err(Refusal::internal)?;
            return Ok(Reply::new(StatusCode::OK, Content::Empty));
        }
        Endpoint::StatusLeader => agent::leader(&inner.gateway.status(), style),
        Endpoint::StatusPeers => agent::peers(&inner.gateway.status(), style),
        Endpoint::RaftConfiguration => {
            params.wait()?;
            let status = inner.status(params.freshness()?).await?;
            agent::raft_configuration(&status, style)
        }
    };
    Ok(Reply::json(Content::Whole(document)))
}

fn other<R: RowStream>(
    method: &Method,
    route: Route<'_>,
    query: Option<&str>,
) -> Result<Reply<R>, Refusal> {
    Err(match route {
        Route::Moved(path) => {
            let location = match query {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            let location = HeaderValue::try_from(location)
                .map_err(|_| Refusal::bad("Request path cannot be redirected"))?;
            return Ok(Reply::new(StatusCode::MOVED_PERMANENTLY, Content::Empty)
                .header(header::LOCATION, location));
        }
        Route::Unprintable => Refusal::bad(""),
        Route::NotText => Refusal::bad("Path is not UTF-8"),
        Route::BadEscape(text) => Refusal::bad(format!("Invalid URL escape {text:?} in the path")),
        Route::Root if *method == Method::GET => Refusal::new(StatusCode::OK, "curia agent\n"),
        Route::Unknown { v1: true } => Refusal::new(
            StatusCode::NOT_FOUND,
            "Invalid URL path: not a recognized HTTP API endpoint\n",
        ),
        _ => Refusal::new(
            StatusCode::NOT_FOUND,
            "Invalid URL path: if attempting to target the HTTP API, ensure the path starts with '/v1/'\n",
        ),
    })
}

/// Answers OPTIONS, and methods that the endpoint does not know; HEAD is one of them, as in Consul.
pub(super) fn not_allowed<R: RowStream>(method: &Method, allowed: &[Method]) -> Option<Reply<R>> {
    if allowed.contains(method) {
        return None;
    }
    let reply = match *method {
        Method::OPTIONS => Reply::new(StatusCode::OK, Content::Empty),
        _ => {
            let text = format!("method {method} not allowed");
            Reply::refusal(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text))
        }
    };
    let names = allowed.iter().fold("OPTIONS".to_string(), |names, method| {
        names + "," + method.as_str()
    });
    let names = HeaderValue::try_from(names).expect("method names are header text");
    Some(reply.header(header::ALLOW, names))
}

impl<G: Gateway> Inner<G> {
    /// Who sent this request. With ACLs off, anyone.
    pub(super) async fn who(&self, parts: &Parts, params: &Params<'_>) -> Result<Who, Refusal> {
        match &self.guard {
            None => Ok(Who::ANYONE),
            Some(guard) => {
                let token = params.get("token");
                Box::pin(guard.who(&self.gateway, &parts.headers, token)).await
            }
        }
    }

    /// The rights of whoever sent this request, for as long as it goes on.
    pub(super) fn rights(&self, parts: &Parts, params: &Params<'_>) -> Rights<G> {
        let token = params.get("token");
        Rights::new(self.guard.as_ref(), &self.gateway, &parts.headers, token)
    }

    /// Refuses a request to one of the fixed endpoints that its sender may not make.
    async fn check(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        params: &Params<'_>,
    ) -> Result<(), Refusal> {
        let node = &self.info.node_name;
        let need = acl::need_of_fixed(endpoint, node);
        if self.guard.is_none() || need == Need::Nothing {
            return Ok(());
        }
        let who = self.who(parts, params).await?;
        acl::check_path(&self.gateway, &who, &need, node).await
    }

    /// Bounds in force.
    pub(super) fn limits(&self) -> HttpLimits {
        self.limits.get()
    }

    /// Answers a connection that is one too many, and ends it.
    async fn refuse_connection(&self, link: &Link, answer: &[u8]) {
        let refused = &self.load.connections_refused;
        refused.set(refused.get() + 1);
        if link.send(answer).await.is_ok() {
            link.close(LINGER_BYTES_MAX).await;
        }
    }

    /// Indented when asked for, and always with `-dev`.
    pub(super) fn style(&self, pretty: bool) -> Style {
        match pretty || self.info.dev_mode {
            true => Style::Pretty,
            false => Style::Compact,
        }
    }

    async fn status(&self, freshness: Freshness) -> Result<wire::ClusterStatus, Refusal> {
        let answer = reads::fresh(&self.gateway, freshness, QueryBody::Status).await?;
        match answer.body {
            AnswerBody::Status(status) => Ok(status),
            _ => Err(Refusal::internal("internal error: rows for a status")),
        }
    }

    /// A prefix names keys of one shard only if it contains a whole first segment.
    pub(super) fn within_one_shard(&self, prefix: &[u8]) -> Result<(), Refusal> {
        let first = prefix
            .iter()
            .position(|b| *b != b'/')
            .unwrap_or(prefix.len());
        // Asked anew: when this service was made the cluster was not known.
        let shards = self.gateway.info().shards;
        if shards <= 1 || prefix[first..].contains(&b'/') {
            return Ok(());
        }
        Err(Refusal::bad(format!(
            "Recursive delete spans shards: with {shards} shards the prefix must contain a whole \
             first segment, such as \"app/\""
        )))
    }

    pub(super) fn metrics(&self) -> Vec<(&'static str, f64)> {
        let load = &self.load;
        vec![
            ("curia.http.connections", load.connections.get() as f64),
            (
                "curia.http.connections_refused",
                load.connections_refused.get() as f64,
            ),
            ("curia.http.requests", load.requests_total.get() as f64),
            ("curia.http.requests_in_flight", load.requests.get() as f64),
            ("curia.http.requests_waiting", load.waiters.get() as f64),
            ("curia.http.watches", load.watchers.get() as f64),
            (
                "curia.http.requests_refused",
                load.requests_refused.get() as f64,
            ),
            (
                "curia.http.body_bytes_in_flight",
                load.body_bytes.get() as f64,
            ),
            ("curia.http.clients_late", load.late.get() as f64),
        ]
    }
}
