//! Keys and transactions.

use super::super::row::{Row, put, row};

const KV: &str = "/v1/kv/{key}";
/// Consul's words, which are Go's.
const NUMBER: &str = "strconv.ParseUint: parsing \"x\": invalid syntax";

pub fn rows() -> Vec<Row> {
    vec![
        row("GET", KV, "/v1/kv/m/a")
            .gives(200, "\"Key\":\"m/a\"")
            .blocks(put("/v1/kv/m/a", "$N"), put("/v1/kv/m/ab", "$N"))
            .reads("key \"m/a\" { policy = \"$A\" }", "'key:read' on \"m/a\"")
            .refuses("/v1/kv/", 400, "Missing key name")
            .refuses("/v1/kv/m/none", 404, ""),
        row("GET", KV, "/v1/kv/m/a?raw")
            .blocks(put("/v1/kv/m/a", "$N"), put("/v1/kv/m/ab", "$N"))
            .reads("key \"m/a\" { policy = \"$A\" }", "'key:read' on \"m/a\""),
        row("GET", KV, "/v1/kv/m/?recurse")
            .gives(200, "\"Key\":\"m/a\"")
            .blocks(put("/v1/kv/m/b$N", "1"), put("/v1/kv/n/b$N", "1"))
            .hides("key_prefix \"m/\" { policy = \"$A\" }", 404, ""),
        row("GET", KV, "/v1/kv/m/?keys&separator=/")
            .gives(200, "\"m/a\"")
            .blocks(put("/v1/kv/m/c$N", "1"), put("/v1/kv/n/c$N", "1"))
            .hides("key_prefix \"m/\" { policy = \"$A\" }", 404, ""),
        row("PUT", KV, "/v1/kv/m/put$N")
            .body("value")
            .gives(200, "true")
            .writes(
                "key_prefix \"m/put\" { policy = \"$A\" }",
                "'key:write' on \"m/put$N\"",
            )
            .refuses("/v1/kv/", 400, "Missing key name")
            .refuses("/v1/kv/m/put?cas=x", 500, NUMBER)
            .refuses("/v1/kv/m/put?flags=x", 500, NUMBER),
        row("DELETE", KV, "/v1/kv/m/del")
            .gives(200, "true")
            .writes(
                "key \"m/del\" { policy = \"$A\" }",
                "'key:write' on \"m/del\"",
            )
            .refuses("/v1/kv/m/del?cas=x", 500, NUMBER),
        row("DELETE", KV, "/v1/kv/m/tree/?recurse")
            .gives(200, "true")
            .writes(
                "key_prefix \"m/tree/\" { policy = \"$A\" }",
                "'key:write' on \"m/tree/\"",
            )
            .refuses(
                "/v1/kv/m/tree/?recurse&cas=1",
                400,
                "Conflicting flags: cas=1&recurse=",
            ),
        row("PUT", "/v1/txn", "/v1/txn")
            .json("[{\"KV\": {\"Verb\": \"set\", \"Key\": \"m/txn\", \"Value\": \"MQ==\"}}]")
            .gives(200, "\"Key\":\"m/txn\"")
            .needs(
                "key \"m/txn\" { policy = \"$A\" }",
                "'key:write' on \"m/txn\"",
                true,
                409,
            )
            .refuses_body(
                "[{\"KV\": {\"Verb\": \"made-up\", \"Key\": \"m/txn\"}}]",
                409,
                "unknown KV operation: made-up",
            )
            .refuses_body(
                "[{\"KV\": {\"Verb\": \"get\", \"Key\": \"m/none\"}}]",
                409,
                "\"OpIndex\":0",
            ),
        // What may not be read is left out, as in Consul.
        row("PUT", "/v1/txn", "/v1/txn")
            .json("[{\"KV\": {\"Verb\": \"get\", \"Key\": \"m/a\"}}]")
            .gives(200, "\"Key\":\"m/a\"")
            .hides(
                "key \"m/a\" { policy = \"$A\" }",
                200,
                "{\"Results\":[],\"Errors\":null",
            ),
    ]
}
