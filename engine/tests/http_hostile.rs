//! Malformed, slow, half-closed, oversized and too many: each client gets a specific error or a
//! closed connection, and nobody else notices.

mod http_support;

use std::{io::Write, time::Duration};

use engine::server::http::{HEADER_BYTES_MAX, HEADERS_MAX, HttpLimits, LINGER_BYTES_MAX};
use http_support::{Server, eventually, get, put, request};

/// Deadlines that a test can wait for.
fn hurried() -> HttpLimits {
    let short = Duration::from_millis(150);
    HttpLimits {
        header_timeout: short,
        body_timeout: short,
        write_timeout: short,
        idle_timeout: short,
        linger_timeout: short,
        ..HttpLimits::default()
    }
}

#[test]
fn one_connection_serves_many_requests() {
    let server = Server::start();
    let mut client = server.client();
    for at in 0..100 {
        let target = format!("/v1/kv/k{at}");
        assert_eq!(client.put(&target, at.to_string()).outcome(), (200, "true"));
        assert_eq!(client.get(&(target + "?raw")).text(), at.to_string());
    }
    assert_eq!(client.get("/v1/kv/none").status, 404);
    assert_eq!(client.request("POST", "/v1/kv/k", &[], b"").status, 405);
    assert_eq!(client.get("/v1/kv/k1?raw").text(), "1");
    assert_eq!(server.metric("curia.http.connections"), 2.0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.client();
    let mut bytes = Vec::new();
    for at in 0..200 {
        bytes.extend(put(&format!("/v1/kv/p{at}"), format!("v{at}")));
        bytes.extend(get(&format!("/v1/kv/p{at}?raw")));
    }
    client.send(&bytes);
    for at in 0..200 {
        assert_eq!(client.read().outcome(), (200, "true"));
        assert_eq!(client.read().text(), format!("v{at}"));
    }
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let server = Server::start();
    let mut client = server.client();
    for byte in put("/v1/kv/slow", "value") {
        client.send(&[byte]);
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(client.read().outcome(), (200, "true"));
    assert_eq!(server.get("/v1/kv/slow?raw").text(), "value");
}

#[test]
fn chunked_bodies_are_taken() {
    let server = Server::start();
    let mut client = server.client();
    client.send(b"PUT /v1/kv/c HTTP/1.1\r\nHost: curia\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(b"5\r\nhello\r\n");
    client.send(b"1;ext=1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n");
    assert_eq!(client.read().outcome(), (200, "true"));
    assert_eq!(client.get("/v1/kv/c?raw").text(), "hello world");
}

#[test]
fn a_chunked_body_over_the_limit_is_413() {
    let limits = HttpLimits {
        value_bytes_max: 1000,
        ..HttpLimits::default()
    };
    let server = Server::with(limits, |_| {});
    let mut client = server.client();
    client.send(b"PUT /v1/kv/c HTTP/1.1\r\nHost: curia\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("3e9\r\n{}\r\n", "x".repeat(1001)).as_bytes());
    let refused = client.read();
    assert_eq!(refused.status, 413);
    assert!(
        refused
            .text()
            .starts_with("Request body(1001 bytes) too large, max size: 1000 bytes.")
    );
    assert!(client.is_closed());
    assert_eq!(server.state().writes, 0);
}

#[test]
fn expect_continue_asks_for_the_body_only_when_it_is_wanted() {
    let server = Server::start();
    let mut client = server.client();
    let head = |length: usize| {
        format!(
            "PUT /v1/kv/e HTTP/1.1\r\nHost: curia\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    client.send(head(5).as_bytes());
    assert_eq!(client.read().status, 100);
    client.send(b"value");
    assert_eq!(client.read().outcome(), (200, "true"));

    client.send(head(1 << 30).as_bytes());
    assert_eq!(client.read().status, 413);
    assert!(client.is_closed());
}

#[test]
fn malformed_requests_are_400_and_closed() {
    let server = Server::start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET /v1/kv/a HTTP/9.9\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nHost: a\r\nbad\x01name: x\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"PUT /v1/kv/a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ] {
        let mut client = server.client();
        client.send(bytes);
        let refused = client.read();
        assert_eq!(refused.status, 400, "{:?}", String::from_utf8_lossy(bytes));
        let text = refused.text();
        let why = text.strip_prefix("Malformed request: ");
        assert!(why.is_some_and(|why| why.len() > 5), "{text:?}");
        assert!(client.is_closed());
    }
    assert_eq!(server.state().writes, 0);
}

/// The reason takes the place of what hyper writes; an answer before it must not be taken for that.
#[test]
fn answers_before_a_malformed_request_are_whole() {
    let server = Server::start();
    let value = "HTTP/1.1 400 Bad Request\r\n\r\n".repeat(10_000);
    server.put("/v1/kv/lure", &value);
    for requests in [0, 1, 2, 20] {
        let mut client = server.client();
        let mut bytes = get("/v1/kv/lure?raw").repeat(requests);
        bytes.extend(b"GET /v1/kv/lure HTTP/1.1\r\nno colon\r\n\r\n");
        client.send(&bytes);
        for _ in 0..requests {
            let answer = client.read();
            assert_eq!((answer.status, answer.text() == value), (200, true));
        }
        let refused = client.read();
        assert_eq!(refused.status, 400);
        assert!(refused.text().starts_with("Malformed request: "));
        assert!(client.is_closed());
    }
}

#[test]
fn a_malformed_chunk_is_400_and_nothing_is_written() {
    let server = Server::start();
    let mut client = server.client();
    client
        .send(b"PUT /v1/kv/c HTTP/1.1\r\nHost: curia\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    let refused = client.read();
    assert_eq!(refused.status, 400);
    assert!(
        refused
            .text()
            .starts_with("Request body is incomplete or malformed"),
        "{}",
        refused.text()
    );
    assert!(client.is_closed());
    assert_eq!(server.state().writes, 0);
}

#[test]
fn header_bytes_max_and_headers_max_are_reached() {
    let server = Server::start();
    let head = |padding: usize| {
        request(
            "GET",
            "/v1/status/leader",
            &[("X", &"x".repeat(padding))],
            b"",
        )
    };
    let fits = HEADER_BYTES_MAX - head(0).len();
    assert_eq!(
        server
            .client()
            .request("GET", "/v1/status/leader", &[("X", &"x".repeat(fits))], b"")
            .status,
        200
    );
    let mut client = server.client();
    client.send(&head(fits + 1));
    let refused = client.read();
    assert_eq!(refused.status, 431);
    // The answer had no body: a client could not know which limit it was, nor how much is allowed.
    let text = refused.text();
    assert!(text.contains(&HEADER_BYTES_MAX.to_string()), "{text}");
    assert!(text.contains(&HEADERS_MAX.to_string()), "{text}");
    assert!(client.is_closed());

    // "Host" is one of them.
    let many = vec![("X", "x"); HEADERS_MAX - 1];
    assert_eq!(
        server
            .client()
            .request("GET", "/v1/status/leader", &many, b"")
            .status,
        200
    );
    let more = vec![("X", "x"); HEADERS_MAX];
    assert_eq!(
        server
            .client()
            .request("GET", "/v1/status/leader", &more, b"")
            .status,
        431
    );
}

#[test]
fn an_endless_header_is_431_in_bounded_memory() {
    let server = Server::start();
    let mut client = server.client();
    client.send(b"GET /v1/kv/a HTTP/1.1\r\nX: ");
    // The server stops reading at some point, so that writing may fail.
    let _ = client.stream.write_all(&vec![b'x'; 1 << 20]);
    assert_eq!(client.read().status, 431);
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&put("/v1/kv/h", "v"));
    client.half_close();
    assert_eq!(client.read().outcome(), (200, "true"));
    assert!(client.is_closed());
}

#[test]
fn a_request_that_ends_too_early_writes_nothing() {
    let server = Server::start();
    let whole = put("/v1/kv/h", "value");
    for cut in [1, 10, whole.len() - 5, whole.len() - 1] {
        let mut client = server.client();
        client.send(&whole[..cut]);
        client.half_close();
        // Cut within the body there is an answer, within the header only an end.
        if let Some(answer) = client.try_read("PUT") {
            assert_eq!(answer.status, 400, "{cut}");
        }
        assert!(client.is_closed(), "{cut}");
    }
    assert_eq!(server.state().writes, 0);
    eventually("all are gone", || {
        server.metric("curia.http.connections") == 1.0
    });
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let server = Server::start();
    server.state().hold = true;
    for _ in 0..20 {
        let mut client = server.client();
        client.send(&put("/v1/kv/v", "v"));
    }
    eventually("all writes wait", || server.state().held == 20);
    server.state().hold = false;
    eventually("nothing is in flight", || {
        server.metric("curia.http.requests_in_flight") == 1.0
            && server.metric("curia.http.body_bytes_in_flight") == 0.0
            && server.metric("curia.http.connections") == 1.0
    });
    assert_eq!(server.state().writes, 20);
}

#[test]
fn a_slow_header_is_408() {
    let server = Server::with(hurried(), |_| {});
    let mut client = server.client();
    client.send(b"GET /v1/kv/a HTTP/1.1\r\nX: ");
    let late = client.read();
    assert_eq!(
        late.outcome(),
        (408, "Request header was not received in time.")
    );
    assert_eq!(late.header("Connection"), Some("close"));
    assert!(client.is_closed());
    assert_eq!(server.metric("curia.http.clients_late"), 1.0);
}

#[test]
fn a_trickling_header_is_408_although_bytes_keep_coming() {
    let server = Server::with(hurried(), |_| {});
    let mut client = server.client();
    let mut trickle = client.stream.try_clone().unwrap();
    let trickling = std::thread::spawn(move || {
        let _ = trickle.write_all(b"GET /v1/kv/a HTTP/1.1\r\n");
        while trickle.write_all(b"X: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(client.read().status, 408);
    trickling.join().unwrap();
}

#[test]
fn a_slow_body_is_408_and_gives_its_bytes_back() {
    let server = Server::with(hurried(), |_| {});
    let mut client = server.client();
    let whole = put("/v1/kv/slow", vec![b'x'; 1000]);
    client.send(&whole[..whole.len() - 500]);
    let late = client.read();
    assert_eq!(
        late.outcome(),
        (408, "Request body was not received in time")
    );
    assert!(client.is_closed());
    assert_eq!(server.metric("curia.http.body_bytes_in_flight"), 0.0);
    assert_eq!(server.state().writes, 0);
}

#[test]
fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let server = Server::with(hurried(), |state| state.batch_rows = 1);
    for at in 0..40 {
        server.put(&format!("/v1/kv/big{at:02}"), vec![b'x'; 500_000]);
    }
    let mut client = server.client();
    client.send(&get("/v1/kv/?recurse"));
    eventually("it is cut off", || {
        server.metric("curia.http.clients_late") == 1.0
    });
    eventually("it is gone", || {
        server.metric("curia.http.connections") == 1.0
    });
    // Only what fits into buffers was ever read of the store: back-pressure reached it.
    assert!(
        server.state().batches_read < 40,
        "{}",
        server.state().batches_read
    );
}

#[test]
fn idle_connections_are_closed_without_a_word() {
    let server = Server::with(hurried(), |_| {});
    let mut client = server.client();
    assert_eq!(client.put("/v1/kv/a", "b").status, 200);
    assert!(client.is_closed());
    assert_eq!(server.metric("curia.http.clients_late"), 0.0);
}

#[test]
fn a_request_being_served_has_no_deadline_here() {
    let server = Server::with(hurried(), |state| state.hold = true);
    let mut client = server.client();
    client.send(&put("/v1/kv/a", "b"));
    std::thread::sleep(Duration::from_millis(600));
    server.state().hold = false;
    assert_eq!(client.read().outcome(), (200, "true"));
}

#[test]
fn requests_max_is_429_and_others_go_on() {
    let limits = HttpLimits {
        requests_max: 4,
        ..HttpLimits::default()
    };
    let server = Server::with(limits, |state| state.hold = true);
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(&put("/v1/kv/a", "b"));
    }
    eventually("four writes wait", || server.state().held == 4);
    let mut refused_client = server.client();
    let refused = refused_client.put("/v1/kv/a", "c");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert!(
        refused.text().starts_with("Too many requests in flight"),
        "{}",
        refused.text()
    );
    server.state().hold = false;
    for client in &mut clients {
        assert_eq!(client.read().outcome(), (200, "true"));
    }
    assert_eq!(refused_client.put("/v1/kv/a", "c").outcome(), (200, "true"));
}

#[test]
fn body_bytes_in_flight_max_is_429() {
    let limits = HttpLimits {
        body_bytes_in_flight_max: 1500,
        ..HttpLimits::default()
    };
    let server = Server::with(limits, |state| state.hold = true);
    let mut first = server.client();
    first.send(&put("/v1/kv/a", vec![b'x'; 1000]));
    eventually("the first waits", || server.state().held == 1);
    let refused = server.put("/v1/kv/b", vec![b'x'; 501]);
    assert_eq!(refused.status, 429);
    assert!(
        refused.text().starts_with("Too many bytes in flight"),
        "{}",
        refused.text()
    );
    server.state().hold = false;
    assert_eq!(first.read().status, 200);
    assert_eq!(server.put("/v1/kv/b", vec![b'x'; 501]).status, 200);
}

#[test]
fn connections_max_is_503() {
    let limits = HttpLimits {
        connections_max: 3,
        ..HttpLimits::default()
    };
    let server = Server::with(limits, |_| {});
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/v1/status/leader").status, 200);
    }
    let refused = server.get("/v1/status/leader");
    assert_eq!(
        refused.outcome(),
        (
            503,
            "Too many connections to this server, try again or elsewhere now"
        )
    );
    assert_eq!(refused.header("Retry-After"), Some("1"));
    drop(clients.pop());
    eventually("there is room again", || {
        server.get("/v1/status/leader").status == 200
    });
    assert_eq!(clients[0].get("/v1/status/leader").status, 200);
}

#[test]
fn linger_bytes_max_bounds_what_is_read_after_a_refusal() {
    let server = Server::start();
    let mut client = server.client();
    client.send(b"PUT /v1/kv/big HTTP/1.1\r\nHost: curia\r\nContent-Length: 1073741824\r\n\r\n");
    // Writing all of it fails at some point: the server does not take a gigabyte.
    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while sent < (1 << 30) && client.stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 16 * LINGER_BYTES_MAX, "{sent}");
    assert_eq!(server.get("/v1/status/leader").status, 200);
}

#[test]
fn a_stopping_server_finishes_what_it_has_and_closes() {
    let server = Server::with(HttpLimits::default(), |state| state.hold = true);
    let mut idle = server.client();
    assert_eq!(idle.get("/v1/status/leader").status, 200);
    let mut busy = server.client();
    busy.send(&put("/v1/kv/a", "b"));
    eventually("the write waits", || server.state().held == 1);
    server.drain();
    assert!(idle.is_closed());
    server.state().hold = false;
    let answer = busy.read();
    assert_eq!(answer.outcome(), (200, "true"));
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(busy.is_closed());
}

#[test]
fn old_clients_are_served_and_closed() {
    let server = Server::start();
    server.put("/v1/kv/a", "b");
    let mut client = server.client();
    client.send(b"GET /v1/kv/a?raw HTTP/1.0\r\n\r\n");
    let mut all = String::new();
    std::io::Read::read_to_string(&mut client.stream, &mut all).unwrap();
    assert!(
        all.starts_with("HTTP/1.0 200 OK\r\n") && all.ends_with("\r\n\r\nb"),
        "{all}"
    );
}
