//! Prepared queries, each of a name of its own. `cluster_queries` holds what those without take.

use super::{
    super::row::{Ask, Row, put, row},
    catalog::WEB_ON_NODE,
};

const QUERY: Ask = Ask {
    method: "POST",
    path: "/v1/query",
    body: "{\"Name\": \"matrix-$N\", \"Service\": {\"Service\": \"web\"}}",
};
const RULE: &str = "query_prefix \"matrix-\" { policy = \"$A\" }";
const READ: &str = "'query:read' on \"matrix-$N\"";
const WRITE: &str = "'query:write' on \"matrix-$N\"";
const KEY: Ask = put("/v1/kv/elsewhere", "$N");

pub fn rows() -> Vec<Row> {
    vec![
        row("POST", "/v1/query", "/v1/query")
            .json(QUERY.body)
            .gives(200, "\"ID\":")
            .writes(RULE, WRITE)
            .refuses_body(
                "{\"Name\": \"q\"}",
                500,
                "Must provide a Service name to query",
            )
            .refuses_body(
                "{\"ID\": \"a\", \"Service\": {\"Service\": \"web\"}}",
                500,
                "ID must be empty when creating a new prepared query",
            ),
        row("GET", "/v1/query", "/v1/query")
            .after(QUERY)
            .gives(200, "\"ID\":\"$ID\"")
            .blocks(QUERY, KEY)
            .hides(RULE, 200, "[]"),
        row("GET", "/v1/query/{id}", "/v1/query/$ID")
            .after(QUERY)
            .gives(200, "\"ID\":\"$ID\"")
            .blocks(put("/v1/query/$ID", QUERY.body), QUERY)
            .reads(RULE, READ)
            .refuses(
                "/v1/query/a0000000-0000-4000-8000-000000000000",
                404,
                "Query not found",
            ),
        row("PUT", "/v1/query/{id}", "/v1/query/$ID")
            .after(QUERY)
            .json(QUERY.body)
            .gives(200, "")
            .writes(RULE, WRITE),
        row("DELETE", "/v1/query/{id}", "/v1/query/$ID")
            .after(QUERY)
            .gives(200, "")
            .writes(RULE, WRITE),
        row("GET", "/v1/query/{name}/execute", "/v1/query/$ID/execute")
            .after(QUERY)
            .gives(200, "\"CheckID\":\"web-up\"")
            .modes()
            .hides(WEB_ON_NODE, 200, "{\"Service\":\"web\",\"Nodes\":[]")
            .refuses("/v1/query/none/execute", 404, "Query not found")
            .refuses("/v1/query/none/execute?limit=x", 400, "Bad limit"),
        row("GET", "/v1/query/{name}/explain", "/v1/query/$ID/explain")
            .after(QUERY)
            .gives(200, "\"Query\":{\"ID\":\"$ID\"")
            .modes()
            .reads(RULE, READ)
            .refuses("/v1/query/none/explain", 404, "Query not found"),
    ]
}
