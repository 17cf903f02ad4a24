//! The catalog, health and coordinates.

use super::super::row::{Ask, Row, put, row};

const fn register(body: &'static str) -> Ask {
    put("/v1/catalog/register", body)
}

const NEW_NODE: Ask = register("{\"Node\": \"x$N\", \"Address\": \"10.0.1.1\"}");
const NEW_KEY: Ask = put("/v1/kv/elsewhere", "$N");
const NEW_SERVICE: Ask =
    register("{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Service\": {\"Service\": \"new$N\"}}");
const NEW_SERVICE_ELSEWHERE: Ask =
    register("{\"Node\": \"n2\", \"SkipNodeUpdate\": true, \"Service\": {\"Service\": \"new$N\"}}");
const WEB: Ask = register(
    "{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Service\": {\"Service\": \"web\", \"ID\": \"web-1\", \"Tags\": [\"$N\"]}}",
);
const DB: Ask = register(
    "{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Service\": {\"Service\": \"db\", \"ID\": \"db-1\", \"Tags\": [\"$N\"]}}",
);
const WEB_PROXY: Ask = register(
    "{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Service\": {\"Kind\": \"connect-proxy\", \"Service\": \"web-proxy\", \"Port\": 21000, \"Tags\": [\"$N\"], \"Proxy\": {\"DestinationServiceName\": \"web\"}}}",
);
const DB_PROXY: Ask = register(
    "{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Service\": {\"Kind\": \"connect-proxy\", \"Service\": \"db-proxy\", \"Port\": 21001, \"Tags\": [\"$N\"], \"Proxy\": {\"DestinationServiceName\": \"db\"}}}",
);
const CHECK_OF_NODE: Ask = register(
    "{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Check\": {\"Node\": \"n1\", \"CheckID\": \"alive\", \"Name\": \"alive\", \"Status\": \"passing\", \"Output\": \"$N\"}}",
);
const CHECK_ELSEWHERE: Ask = register(
    "{\"Node\": \"n2\", \"SkipNodeUpdate\": true, \"Check\": {\"Node\": \"n2\", \"CheckID\": \"alive\", \"Name\": \"alive\", \"Status\": \"passing\", \"Output\": \"$N\"}}",
);
const CHECK_OF_WEB: Ask = register(
    "{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Check\": {\"Node\": \"n1\", \"CheckID\": \"web-up\", \"Name\": \"up\", \"Status\": \"passing\", \"ServiceID\": \"web-1\", \"Output\": \"$N\"}}",
);
const CHECK_OF_DB: Ask = register(
    "{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Check\": {\"Node\": \"n1\", \"CheckID\": \"db-up\", \"Name\": \"up\", \"Status\": \"passing\", \"ServiceID\": \"db-1\", \"Output\": \"$N\"}}",
);
const CRITICAL: Ask = register(
    "{\"Node\": \"n2\", \"SkipNodeUpdate\": true, \"Check\": {\"Node\": \"n2\", \"CheckID\": \"bad\", \"Name\": \"bad\", \"Status\": \"critical\", \"Output\": \"$N\"}}",
);
const NODE: &str = "node \"n1\" { policy = \"$A\" }";
pub const WEB_ON_NODE: &str =
    "node \"n1\" { policy = \"$A\" } service_prefix \"web\" { policy = \"$A\" }";
const FILTER: &str = "Failed to create boolean expression evaluator: ";

/// What is there before anything is asked.
pub const BEFORE: &[Ask] = &[
    register("{\"Node\": \"n1\", \"Address\": \"10.0.0.1\"}"),
    register("{\"Node\": \"n2\", \"Address\": \"10.0.0.2\"}"),
    WEB,
    DB,
    WEB_PROXY,
    DB_PROXY,
    CHECK_OF_NODE,
    CHECK_ELSEWHERE,
    CHECK_OF_WEB,
    CHECK_OF_DB,
    CRITICAL,
    put(
        "/v1/coordinate/update",
        "{\"Node\": \"n1\", \"Segment\": \"\", \"Coord\": {\"Vec\": [0.1, 0, 0, 0, 0, 0, 0, 0], \"Error\": 1.5, \"Adjustment\": 0, \"Height\": 0.1}}",
    ),
    put("/v1/kv/m/a", "1"),
];

pub fn rows() -> Vec<Row> {
    [catalog(), health(), coordinates()].concat()
}

fn catalog() -> Vec<Row> {
    vec![
        row("PUT", "/v1/catalog/register", "/v1/catalog/register")
            .json("{\"Node\": \"reg\", \"Address\": \"10.0.0.9\"}")
            .gives(200, "true")
            .writes(
                "node \"reg\" { policy = \"$A\" }",
                "'node:write' on \"reg\"",
            )
            .refuses_body("{\"Address\": \"10.0.0.9\"}", 500, "Must provide node")
            .refuses_body("{\"Node\": \"reg\"}", 500, "Must provide address")
            .refuses_body(
                "{\"Node\": \"reg\", \"Address\": \"10.0.0.9\", \"Datacenter\": \"elsewhere\"}",
                500,
                "No path to datacenter",
            ),
        row("PUT", "/v1/catalog/register", "/v1/catalog/register")
            .json(
                "{\"Node\": \"n1\", \"SkipNodeUpdate\": true, \"Service\": {\"Service\": \"reg\"}}",
            )
            .gives(200, "true")
            .writes(
                "service \"reg\" { policy = \"$A\" }",
                "'service:write' on \"reg\"",
            ),
        row("PUT", "/v1/catalog/deregister", "/v1/catalog/deregister")
            .json("{\"Node\": \"gone\"}")
            .gives(200, "true")
            .writes(
                "node \"gone\" { policy = \"$A\" }",
                "'node:write' on \"gone\"",
            )
            .refuses_body("{}", 500, "Must provide node")
            .refuses_body(
                "{\"Node\": \"gone\", \"Datacenter\": \"elsewhere\"}",
                500,
                "No path to datacenter",
            ),
        row("GET", "/v1/catalog/datacenters", "/v1/catalog/datacenters").gives(200, "[\"dc1\"]"),
        row("GET", "/v1/catalog/nodes", "/v1/catalog/nodes")
            .gives(200, "\"Node\":\"n1\"")
            .blocks(NEW_NODE, NEW_KEY)
            .hides(NODE, 200, "[]")
            .refuses("/v1/catalog/nodes?filter=made-up%20%3D%3D%201", 500, FILTER),
        row("GET", "/v1/catalog/services", "/v1/catalog/services")
            .gives(200, "\"web\":[")
            .blocks(NEW_SERVICE, NEW_NODE)
            .hides("service \"web\" { policy = \"$A\" }", 200, "{}"),
        row(
            "GET",
            "/v1/catalog/service/{service}",
            "/v1/catalog/service/web",
        )
        .gives(200, "\"ServiceID\":\"web-1\"")
        .blocks(WEB, DB)
        .hides(WEB_ON_NODE, 200, "[]")
        .refuses("/v1/catalog/service/", 400, "Missing service name")
        .refuses(
            "/v1/catalog/service/web?filter=made-up%20%3D%3D%201",
            500,
            FILTER,
        ),
        row(
            "GET",
            "/v1/catalog/connect/{service}",
            "/v1/catalog/connect/web",
        )
        .gives(200, "\"ServiceName\":\"web-proxy\"")
        // It wakes for any change of the catalog, as in Consul.
        .blocks(WEB_PROXY, NEW_KEY)
        .hides(WEB_ON_NODE, 200, "[]")
        .refuses("/v1/catalog/connect/", 400, "Missing service name"),
        row("GET", "/v1/catalog/node/{node}", "/v1/catalog/node/n1")
            .gives(200, "\"Service\":\"web\"")
            .blocks(NEW_SERVICE, NEW_SERVICE_ELSEWHERE)
            .hides(WEB_ON_NODE, 200, "null")
            .refuses("/v1/catalog/node/", 400, "Missing node name"),
        row(
            "GET",
            "/v1/catalog/node-services/{node}",
            "/v1/catalog/node-services/n1",
        )
        .gives(200, "\"Service\":\"web\"")
        .blocks(NEW_SERVICE, NEW_SERVICE_ELSEWHERE)
        .hides(WEB_ON_NODE, 200, "null")
        .refuses("/v1/catalog/node-services/", 400, "Missing node name"),
    ]
}

fn health() -> Vec<Row> {
    vec![
        row("GET", "/v1/health/node/{node}", "/v1/health/node/n1")
            .gives(200, "\"CheckID\":\"alive\"")
            .blocks(CHECK_OF_NODE, CHECK_ELSEWHERE)
            .hides(NODE, 200, "[]")
            .refuses("/v1/health/node/", 400, "Missing node name")
            .refuses(
                "/v1/health/node/n1?filter=made-up%20%3D%3D%201",
                500,
                FILTER,
            ),
        row(
            "GET",
            "/v1/health/checks/{service}",
            "/v1/health/checks/web",
        )
        .gives(200, "\"CheckID\":\"web-up\"")
        .blocks(CHECK_OF_WEB, CHECK_OF_DB)
        .hides(WEB_ON_NODE, 200, "[]")
        .refuses("/v1/health/checks/", 400, "Missing service name"),
        row(
            "GET",
            "/v1/health/state/{state}",
            "/v1/health/state/critical",
        )
        .gives(200, "\"CheckID\":\"bad\"")
        .blocks(CRITICAL, CHECK_OF_WEB)
        .hides("node \"n2\" { policy = \"$A\" }", 200, "[]")
        .refuses("/v1/health/state/", 400, "Missing check state"),
        row(
            "GET",
            "/v1/health/service/{service}",
            "/v1/health/service/web",
        )
        .gives(200, "\"CheckID\":\"web-up\"")
        .blocks(CHECK_OF_WEB, CHECK_OF_DB)
        .hides(WEB_ON_NODE, 200, "[]")
        .refuses("/v1/health/service/", 400, "Missing service name")
        .refuses(
            "/v1/health/service/web?passing=x",
            400,
            "Invalid value for ?passing",
        ),
        row(
            "GET",
            "/v1/health/service/{service}",
            "/v1/health/service/web?passing&near=_agent",
        )
        .gives(200, "\"CheckID\":\"web-up\"")
        .blocks(WEB, DB)
        .hides(WEB_ON_NODE, 200, "[]"),
        row(
            "GET",
            "/v1/health/connect/{service}",
            "/v1/health/connect/web",
        )
        .gives(200, "\"Service\":\"web-proxy\"")
        // It wakes for any change of the catalog, as in Consul.
        .blocks(WEB_PROXY, NEW_KEY)
        .hides(WEB_ON_NODE, 200, "[]")
        .refuses("/v1/health/connect/", 400, "Missing service name"),
    ]
}

fn coordinates() -> Vec<Row> {
    const N1: Ask = put(
        "/v1/coordinate/update",
        "{\"Node\": \"n1\", \"Segment\": \"\", \"Coord\": {\"Vec\": [$N, 0, 0, 0, 0, 0, 0, 0], \"Error\": 1.5, \"Adjustment\": 0, \"Height\": 0.1}}",
    );
    const N2: Ask = put(
        "/v1/coordinate/update",
        "{\"Node\": \"n2\", \"Segment\": \"\", \"Coord\": {\"Vec\": [$N, 0, 0, 0, 0, 0, 0, 0], \"Error\": 1.5, \"Adjustment\": 0, \"Height\": 0.1}}",
    );
    vec![
        row("PUT", "/v1/coordinate/update", "/v1/coordinate/update")
            .json(N1.body)
            .writes("node \"n1\" { policy = \"$A\" }", "'node:write' on \"n1\"")
            .refuses_body("{\"Segment\": \"\"}", 400, "Must provide node"),
        row(
            "GET",
            "/v1/coordinate/datacenters",
            "/v1/coordinate/datacenters",
        )
        .gives(200, "\"Datacenter\":\"dc1\""),
        row("GET", "/v1/coordinate/nodes", "/v1/coordinate/nodes")
            .gives(200, "\"Node\":\"n1\"")
            .blocks(N1, NEW_KEY)
            .hides(NODE, 200, "[]"),
        row(
            "GET",
            "/v1/coordinate/node/{node}",
            "/v1/coordinate/node/n1",
        )
        .gives(200, "\"Node\":\"n1\"")
        .blocks(N1, N2)
        .reads(NODE, "'node:read' on \"n1\"")
        .refuses("/v1/coordinate/node/", 400, "Missing node name")
        .refuses("/v1/coordinate/node/none", 404, ""),
    ]
}
