//! Listings of any length: whole when short, in pieces when long, and never a short one for a
//! broken one.

mod http_support;

use bytes::Bytes;
use engine::server::http::ANSWER_PIECE_BYTES;
use http_support::{Server, get};
use wire::{Index, KvRow};

fn fill(server: &Server, rows: usize, value_bytes: usize) {
    let mut state = server.state();
    for at in 0..rows {
        let key = format!("list/{at:06}").into_bytes();
        let row = KvRow {
            key: key.clone().into(),
            value: Bytes::from(vec![b'a' + (at % 26) as u8; value_bytes]),
            flags: at as u64,
            create_index: Index(1),
            modify_index: Index(1 + at as u64),
            lock_index: 0,
            session: Bytes::new(),
        };
        state.rows.insert(key, row);
    }
}

#[test]
fn a_short_listing_has_a_length_and_a_long_one_comes_in_chunks() {
    let server = Server::start();
    fill(&server, 10, 100);
    let short = server.get("/v1/kv/list/?recurse");
    assert!(short.header("Content-Length").is_some());
    assert_eq!(short.json().as_array().unwrap().len(), 10);

    fill(&server, 10_000, 100);
    let long = server.get("/v1/kv/list/?recurse");
    assert_eq!(long.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(long.header("X-Consul-Index"), Some("10000"));
    assert!(long.complete && long.body.len() > 10 * ANSWER_PIECE_BYTES);
    let rows = long.json();
    for (at, row) in rows.as_array().unwrap().iter().enumerate() {
        assert_eq!(row["Key"], format!("list/{at:06}"));
        assert_eq!(row["Flags"], at);
    }
    assert_eq!(rows.as_array().unwrap().len(), 10_000);
    let pretty = server.get("/v1/kv/list/?recurse&pretty");
    assert_eq!(pretty.json(), rows);
    assert!(pretty.text().ends_with("\n    }\n]\n"));
}

#[test]
fn rows_larger_than_a_piece_and_batches_of_any_size_make_the_same_listing() {
    let server = Server::start();
    fill(&server, 60, 40_000);
    let whole = server.get("/v1/kv/list/?recurse").body;
    for batch_rows in [1, 7, 1000] {
        server.state().batch_rows = batch_rows;
        assert!(
            server.get("/v1/kv/list/?recurse").body == whole,
            "{batch_rows}"
        );
    }
}

#[test]
fn a_listing_that_fails_before_it_begins_is_an_error() {
    let server = Server::start();
    fill(&server, 1000, 100);
    for batches in [0, 1] {
        server.state().fail_after_batches = Some(batches);
        assert_eq!(
            server.get("/v1/kv/list/?recurse").outcome(),
            (500, "the store went away")
        );
    }
}

#[test]
fn a_listing_that_fails_midway_is_cut_off_and_not_ended() {
    let server = Server::start();
    fill(&server, 10_000, 100);
    server.state().fail_after_batches = Some(20);
    let mut client = server.client();
    let broken = client.get("/v1/kv/list/?recurse");
    assert_eq!(broken.status, 200);
    assert!(!broken.complete);
    assert!(client.is_closed());
    server.state().fail_after_batches = None;
    assert!(server.get("/v1/kv/list/?recurse").complete);
}

#[test]
fn long_listings_share_the_executor_with_short_requests() {
    let server = Server::start();
    fill(&server, 30_000, 200);
    let mut listings: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &mut listings {
        client.send(&get("/v1/kv/list/?recurse"));
    }
    assert_eq!(server.get("/v1/kv/list/000001").status, 200);
    for client in &mut listings {
        assert_eq!(client.read().json().as_array().unwrap().len(), 30_000);
    }
}

#[test]
fn a_value_of_the_greatest_size_goes_in_and_out() {
    let server = Server::start();
    let value: Vec<u8> = (0..wire::limits::VALUE_BYTES_MAX)
        .map(|at| (at * 7) as u8)
        .collect();
    assert_eq!(server.put("/v1/kv/big", &value).outcome(), (200, "true"));
    assert!(server.get("/v1/kv/big?raw").body == value);
    let row = server.get("/v1/kv/big").json();
    let encoded = row[0]["Value"].as_str().unwrap();
    use base64::Engine;
    assert!(
        base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .unwrap()
            == value
    );
}
