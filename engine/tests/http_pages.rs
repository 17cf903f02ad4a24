//! `?limit=` and `?start-after=` over real sockets.

mod http_support;

use engine::server::http::PAGE_BYTES_MAX;
use http_support::{Response, Server};
use wire::QueryBody;

fn filled(keys: &[&str]) -> Server {
    let server = Server::start();
    for key in keys {
        server.put(&format!("/v1/kv/{key}"), "v");
    }
    server
}

fn names(page: &Response) -> Vec<String> {
    let rows = page.json();
    let name = |row: &serde_json::Value| row.as_str().or(row["Key"].as_str()).unwrap().to_owned();
    rows.as_array().unwrap().iter().map(name).collect()
}

/// Walks a listing page by page, and says how many there were.
fn walk(server: &Server, listing: &str, limit: usize) -> (Vec<String>, usize) {
    let (mut all, mut pages) = (Vec::new(), 0);
    let mut target = format!("{listing}&limit={limit}");
    loop {
        let page = server.get(&target);
        let found = names(&page);
        assert!(found.len() <= limit);
        all.extend(found);
        pages += 1;
        match page.header("X-Curia-Next") {
            Some(next) => target = format!("{listing}&limit={limit}&start-after={next}"),
            None => return (all, pages),
        }
    }
}

const KEYS: [&str; 7] = [
    "p/a",
    "p/b/1",
    "p/b/2",
    "p/b/3",
    "p/c%20d+e%26f",
    "p/d",
    "q",
];

#[test]
fn a_listing_is_the_same_page_by_page() {
    let server = filled(&KEYS);
    for listing in [
        "/v1/kv/p/?recurse",
        "/v1/kv/p/?keys",
        "/v1/kv/p/?keys&separator=/",
        "/v1/kv/?recurse",
        "/v1/kv/?keys&separator=/",
        "/v1/kv/p?recurse&pretty",
    ] {
        let whole = server.get(listing);
        assert_eq!(whole.header("X-Curia-Next"), None, "{listing}");
        let whole = names(&whole);
        for limit in 1..=whole.len() + 1 {
            let (all, pages) = walk(&server, listing, limit);
            assert_eq!(all, whole, "{listing}, {limit} each");
            assert_eq!(pages, whole.len().div_ceil(limit), "the last says so");
        }
    }
}

#[test]
fn a_page_has_consuls_headers_and_shapes() {
    let server = filled(&KEYS);
    let page = server.get("/v1/kv/p/?recurse&limit=2");
    assert_eq!(page.header("X-Curia-Next"), Some("p/b/1"));
    assert_eq!(page.header("X-Consul-Index"), Some("16"), "of all of them");
    assert_eq!(page.header("X-Consul-Knownleader"), Some("true"));
    assert_eq!(page.header("Content-Type"), Some("application/json"));
    let whole = server.get("/v1/kv/p/?recurse").json();
    assert_eq!(page.json(), serde_json::json!([whole[0], whole[1]]));
    let odd = server.get("/v1/kv/p/?keys&limit=1&start-after=p/b/3");
    assert_eq!(odd.header("X-Curia-Next"), Some("p/c%20d%2Be%26f"));
    // Asked for one more than the page holds, and no more.
    let state = server.state();
    let Some((_, QueryBody::KvKeys { limit, .. })) = state.reads.last() else {
        panic!("not a listing of names");
    };
    assert_eq!(*limit, 2);
}

/// What lies behind the last page is the end; what lies behind nothing is Consul's 404.
#[test]
fn the_end_of_a_listing_is_an_empty_page_and_a_missing_one_is_404() {
    let server = filled(&KEYS);
    for kind in ["recurse", "keys"] {
        let end = server.get(&format!("/v1/kv/p/?{kind}&limit=5&start-after=p/z"));
        assert_eq!(end.outcome(), (200, "[]"));
        let rest = server.get(&format!("/v1/kv/p/?{kind}&start-after=p/c"));
        assert_eq!(names(&rest), ["p/c d+e&f", "p/d"], "without a limit: all");
        let missing = server.get(&format!("/v1/kv/x/?{kind}&limit=5"));
        assert_eq!(missing.outcome(), (404, ""));
    }
}

/// However great its limit, a page ends at so many bytes; a row longer than that is a page.
#[test]
fn page_bytes_max_ends_a_page_before_its_limit() {
    let server = Server::start();
    let value = vec![b'v'; 300_000];
    for n in 0..9 {
        server.put(&format!("/v1/kv/big/{n}"), &value);
    }
    let page = server.get("/v1/kv/big/?recurse&limit=1000");
    // 400,000 bytes each as text.
    assert_eq!(names(&page).len(), 3);
    assert!(page.body.len() >= PAGE_BYTES_MAX && page.body.len() < PAGE_BYTES_MAX + 401_000);
    assert_eq!(page.header("X-Curia-Next"), Some("big/2"));
    let (all, pages) = walk(&server, "/v1/kv/big/?recurse", 1000);
    assert_eq!((all.len(), pages), (9, 3));
    // Without a limit it is Consul's listing.
    assert_eq!(names(&server.get("/v1/kv/big/?recurse")).len(), 9);
}

#[test]
fn a_page_waits_for_a_change_like_any_listing() {
    let server = filled(&KEYS);
    let index = server
        .get("/v1/kv/p/?recurse")
        .header("X-Consul-Index")
        .unwrap()
        .to_owned();
    let mut client = server.client();
    let target = format!("/v1/kv/p/?recurse&limit=1&index={index}");
    client.send(&http_support::get(&target));
    http_support::eventually("it waits", || server.state().waiting == 1);
    server.put("/v1/kv/p/z", "v");
    let page = client.read();
    assert_eq!(names(&page), ["p/a"]);
    assert_eq!(page.header("X-Consul-Index"), Some("18"));
}

/// A delete or a write with a misplaced parameter would do more than was meant.
#[test]
fn pages_are_for_reading_only() {
    let server = filled(&KEYS);
    for (target, text) in [
        (
            "?recurse&limit=1",
            "?limit is for reading only: nothing was changed",
        ),
        (
            "?recurse&start-after=p/c",
            "?start-after is for reading only: nothing was changed",
        ),
        (
            "?recurse&watch",
            "?watch is for reading only: nothing was changed",
        ),
    ] {
        let refused = server.delete(&format!("/v1/kv/p/{target}"));
        assert_eq!(refused.outcome(), (400, text));
    }
    let refused = server.put("/v1/kv/p/a?limit=1", "2");
    assert_eq!(refused.status, 400);
    assert_eq!(server.state().writes, KEYS.len());
    assert_eq!(names(&server.get("/v1/kv/?keys")).len(), KEYS.len());
}
