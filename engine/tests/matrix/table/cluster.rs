//! Sessions, config entries, and the cluster itself.

use super::super::row::{Ask, Row, put, row};

const SESSION: Ask = put("/v1/session/create", "{\"Node\": \"n1\", \"Checks\": []}");
const ELSEWHERE: Ask = put("/v1/session/create", "{\"Node\": \"n2\", \"Checks\": []}");
const KEY: Ask = put("/v1/kv/elsewhere", "$N");
const RULE: &str = "session \"n1\" { policy = \"$A\" }";
const WRITE: &str = "'session:write' on \"n1\"";

pub fn rows() -> Vec<Row> {
    [sessions(), config(), itself()].concat()
}

fn sessions() -> Vec<Row> {
    vec![
        row("PUT", "/v1/session/create", "/v1/session/create")
            .json(SESSION.body)
            .gives(200, "\"ID\":")
            .writes(RULE, WRITE)
            .refuses_body("{\"Node\": \"none\"}", 500, "Missing node registration")
            .refuses_body(
                "{\"TTL\": \"1s\"}",
                500,
                "Invalid Session TTL '1000000000', must be between [10s=24h0m0s]",
            )
            .refuses_body(
                "{\"TTL\": \"x\"}",
                500,
                "Session TTL 'x' invalid: time: invalid duration \"x\"",
            )
            .refuses_body("{\"Behavior\": \"x\"}", 500, "Invalid Behavior setting 'x'")
            .refuses_body(
                "{\"Node\": \"n1\", \"Checks\": [\"none\"]}",
                500,
                "Missing check 'none' registration",
            ),
        row("PUT", "/v1/session/destroy/{id}", "/v1/session/destroy/$ID")
            .after(SESSION)
            .gives(200, "true")
            .writes(RULE, WRITE)
            .refuses("/v1/session/destroy/", 400, "Missing session"),
        row("PUT", "/v1/session/renew/{id}", "/v1/session/renew/$ID")
            .after(SESSION)
            .gives(200, "\"ID\":\"$ID\"")
            .writes(RULE, WRITE)
            .refuses("/v1/session/renew/", 400, "Missing session")
            .refuses(
                "/v1/session/renew/a0000000-0000-4000-8000-000000000000",
                404,
                "Session id 'a0000000-0000-4000-8000-000000000000' not found",
            ),
        row("GET", "/v1/session/info/{id}", "/v1/session/info/$ID")
            .after(SESSION)
            .gives(200, "\"ID\":\"$ID\"")
            .blocks(put("/v1/session/destroy/$ID", ""), SESSION)
            .hides(RULE, 200, "[]")
            .refuses("/v1/session/info/", 400, "Missing session"),
        row("GET", "/v1/session/list", "/v1/session/list")
            .after(SESSION)
            .gives(200, "\"ID\":\"$ID\"")
            .blocks(SESSION, KEY)
            .hides(RULE, 200, "[]"),
        row("GET", "/v1/session/node/{node}", "/v1/session/node/n1")
            .after(SESSION)
            .gives(200, "\"ID\":\"$ID\"")
            .blocks(SESSION, ELSEWHERE)
            .hides(RULE, 200, "[]")
            .refuses("/v1/session/node/", 400, "Missing node name"),
    ]
}

fn config() -> Vec<Row> {
    const WEB: Ask = put(
        "/v1/config",
        "{\"Kind\": \"service-defaults\", \"Name\": \"web\", \"Meta\": {\"n\": \"$N\"}}",
    );
    const DB: Ask = put(
        "/v1/config",
        "{\"Kind\": \"service-defaults\", \"Name\": \"db\", \"Meta\": {\"n\": \"$N\"}}",
    );
    const RESOLVER: Ask = put(
        "/v1/config",
        "{\"Kind\": \"service-resolver\", \"Name\": \"web\", \"Meta\": {\"n\": \"$N\"}}",
    );
    const RULE: &str = "service \"web\" { policy = \"$A\" }";
    vec![
        row("PUT", "/v1/config", "/v1/config")
            .json(WEB.body)
            .gives(200, "true")
            .writes(RULE, "'service:write' on \"web\"")
            .refuses_body(
                "{}",
                400,
                "Request decoding failed: Payload does not contain a kind",
            )
            .refuses_body(
                "{\"Kind\": \"service-default\", \"Name\": \"a\"}",
                400,
                "invalid config entry kind: service-default",
            ),
        row("PUT", "/v1/config", "/v1/config")
            .json("{\"Kind\": \"proxy-defaults\", \"Name\": \"global\"}")
            .gives(200, "true")
            .writes("mesh = \"$A\"", "'mesh:write'"),
        row("GET", "/v1/config/{kind}", "/v1/config/service-defaults")
            .after(WEB)
            .gives(200, "\"Name\":\"web\"")
            .blocks(WEB, RESOLVER)
            .hides(RULE, 200, "[]")
            .refuses(
                "/v1/config/made-up",
                400,
                "invalid config entry kind: made-up",
            ),
        row(
            "GET",
            "/v1/config/{kind}",
            "/v1/config/service-defaults/web",
        )
        .after(WEB)
        .gives(200, "\"Name\":\"web\"")
        .blocks(WEB, DB)
        .reads(RULE, "'service:read' on \"web\"")
        .refuses(
            "/v1/config/service-defaults/none",
            404,
            "Config entry not found for \"service-defaults\" / \"none\"",
        ),
        row(
            "DELETE",
            "/v1/config/{kind}",
            "/v1/config/service-defaults/web",
        )
        .after(WEB)
        .gives(200, "{}")
        .writes(RULE, "'service:write' on \"web\"")
        .refuses(
            "/v1/config/service-defaults",
            404,
            "Must provide both a kind and name to delete",
        )
        .refuses(
            "/v1/config/service-defaults/web?cas=x",
            400,
            "Error parsing cas value",
        ),
    ]
}

fn itself() -> Vec<Row> {
    vec![
        row("GET", "/", "/").gives(200, "curia agent"),
        row("GET", "/v1/status/leader", "/v1/status/leader").gives(200, ":8300\""),
        row("GET", "/v1/status/peers", "/v1/status/peers").gives(200, ":8300\""),
        row(
            "GET",
            "/v1/operator/raft/configuration",
            "/v1/operator/raft/configuration",
        )
        .gives(200, "\"Servers\":[")
        .modes()
        .reads("operator = \"$A\"", "'operator:read'"),
        row("GET", "/v1/operator/usage", "/v1/operator/usage")
            .gives(200, "\"Usage\":{")
            .modes()
            .reads("operator = \"$A\"", "'operator:read'"),
    ]
}
