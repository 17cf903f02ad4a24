//! What is asked of one server: its agent, and user events.

use super::super::row::{Ask, Mark, Row, put, row};

const WEB: Ask = put(
    "/v1/agent/service/register",
    "{\"Name\": \"aweb\", \"ID\": \"aweb-1\", \"Check\": {\"CheckID\": \"aweb-ttl\", \"TTL\": \"600s\", \"Status\": \"passing\"}}",
);
const CHECK: Ask = put(
    "/v1/agent/check/register",
    "{\"Name\": \"own\", \"CheckID\": \"own\", \"TTL\": \"600s\"}",
);
const SEE_WEB: &str = "service \"aweb\" { policy = \"$A\" }";
const OF_WEB: &str = "'service:read' on \"aweb\"";
const CHANGES_WEB: &str = "'service:write' on \"aweb\"";
const NODE: &str = "node \"s1\" { policy = \"$A\" }";
const OF_NODE: &str = "'node:write' on \"s1\"";
const AGENT: &str = "agent \"s1\" { policy = \"$A\" }";
const OF_AGENT: &str = "'agent:read' on \"s1\"";
const CHANGES_AGENT: &str = "'agent:write' on \"s1\"";
const OPERATOR: &str = "operator = \"$A\"";
const NO_SERVICE: &str = "Unknown service ID \"none\"";
const NO_CHECK: &str = "Unknown check ID \"none\"";

const FILTER: &str = "Failed to create boolean expression evaluator: ";

pub fn rows() -> Vec<Row> {
    [own(), services(), checks(), events()].concat()
}

fn own() -> Vec<Row> {
    vec![
        row("GET", "/v1/agent/self", "/v1/agent/self")
            .gives(200, "\"NodeName\":\"s1\"")
            .reads(AGENT, OF_AGENT),
        row("GET", "/v1/agent/version", "/v1/agent/version")
            .gives(200, "\"HumanVersion\"")
            .reads(AGENT, OF_AGENT),
        row("GET", "/v1/agent/metrics", "/v1/agent/metrics")
            .gives(200, "\"Gauges\"")
            .reads(AGENT, OF_AGENT),
        // Without an end: `cluster_agent` reads them.
        row(
            "GET",
            "/v1/agent/metrics/stream",
            "/v1/agent/metrics/stream",
        )
        .reads(AGENT, OF_AGENT)
        .only_denied(),
        row("GET", "/v1/agent/monitor", "/v1/agent/monitor")
            .reads(AGENT, OF_AGENT)
            .only_denied(),
        row("GET", "/v1/agent/host", "/v1/agent/host")
            .gives(200, "\"Memory\"")
            .reads(OPERATOR, "'operator:read'"),
        row("GET", "/v1/agent/members", "/v1/agent/members")
            .gives(200, "\"Name\":\"s1\"")
            .hides(NODE, 200, "[]")
            .refuses("/v1/agent/members?filter=made-up%20%3D%3D%201", 500, FILTER),
        row(
            "PUT",
            "/v1/agent/maintenance",
            "/v1/agent/maintenance?enable=false",
        )
        .writes(NODE, OF_NODE)
        .refuses("/v1/agent/maintenance", 400, "Missing value for enable")
        .refuses(
            "/v1/agent/maintenance?enable=x",
            400,
            "Invalid value for enable: \"x\"",
        ),
        row("PUT", "/v1/agent/reload", "/v1/agent/reload").writes(AGENT, CHANGES_AGENT),
        row("PUT", "/v1/agent/leave", "/v1/agent/leave")
            .writes(AGENT, CHANGES_AGENT)
            .only_denied(),
        row(
            "PUT",
            "/v1/agent/join/{address}",
            "/v1/agent/join/127.0.0.1",
        )
        .writes(AGENT, CHANGES_AGENT)
        .only_denied(),
        row(
            "PUT",
            "/v1/agent/force-leave/{node}",
            "/v1/agent/force-leave/s9",
        )
        .writes(OPERATOR, "'operator:write'")
        .only_denied(),
        row(
            "PUT",
            "/v1/agent/token/{kind}",
            "/v1/agent/token/replication",
        )
        .json("{\"Token\": \"x\"}")
        .writes(AGENT, CHANGES_AGENT)
        .refuses("/v1/agent/token/none", 404, "Token \"none\" is unknown"),
    ]
}

fn services() -> Vec<Row> {
    vec![
        row(
            "PUT",
            "/v1/agent/service/register",
            "/v1/agent/service/register",
        )
        .json(WEB.body)
        .writes(SEE_WEB, CHANGES_WEB)
        .refuses_body("{\"ID\": \"x\"}", 400, "Missing service name")
        .refuses_body(
            "{\"Name\": \"x\", \"Check\": {\"Shell\": \"rm\"}}",
            400,
            "script checks are not supported",
        ),
        row("GET", "/v1/agent/services", "/v1/agent/services")
            .after(WEB)
            .gives(200, "\"aweb-1\":{")
            .hides(SEE_WEB, 200, "{}")
            .refuses(
                "/v1/agent/services?filter=made-up%20%3D%3D%201",
                500,
                FILTER,
            ),
        row("GET", "/v1/agent/service/{id}", "/v1/agent/service/aweb-1")
            .after(WEB)
            .gives(200, "\"Service\":\"aweb\"")
            .blocks_here(
                Mark::Hash,
                put(
                    "/v1/agent/service/register",
                    "{\"Name\": \"aweb\", \"ID\": \"aweb-1\", \"Tags\": [\"$N\"]}",
                ),
                put(
                    "/v1/agent/service/register",
                    "{\"Name\": \"adb\", \"ID\": \"adb-1\", \"Tags\": [\"$N\"]}",
                ),
            )
            .reads(SEE_WEB, OF_WEB)
            .refuses("/v1/agent/service/none", 404, "unknown service ID: none")
            .refuses("/v1/agent/service/", 400, "Missing service ID"),
        row(
            "GET",
            "/v1/agent/health/service/id/{id}",
            "/v1/agent/health/service/id/aweb-1",
        )
        .after(WEB)
        .gives(200, "\"AggregatedStatus\":\"passing\"")
        .reads(SEE_WEB, OF_WEB)
        .refuses("/v1/agent/health/service/id/none", 404, "\"Service\":null")
        .refuses("/v1/agent/health/service/id/", 400, "Missing serviceID"),
        // Found here: the text was not looked at when the JSON was.
        row(
            "GET",
            "/v1/agent/health/service/id/{id}",
            "/v1/agent/health/service/id/aweb-1?format=text",
        )
        .after(WEB)
        .gives(200, "passing")
        .reads(SEE_WEB, OF_WEB),
        row(
            "GET",
            "/v1/agent/health/service/name/{name}",
            "/v1/agent/health/service/name/aweb",
        )
        .after(WEB)
        .gives(200, "\"AggregatedStatus\":\"passing\"")
        .reads(SEE_WEB, OF_WEB)
        .refuses("/v1/agent/health/service/name/none", 404, "[]")
        .refuses(
            "/v1/agent/health/service/name/",
            400,
            "Missing service Name",
        ),
        row(
            "PUT",
            "/v1/agent/service/deregister/{id}",
            "/v1/agent/service/deregister/aweb-1",
        )
        .after(WEB)
        .writes(SEE_WEB, CHANGES_WEB)
        .refuses("/v1/agent/service/deregister/none", 404, NO_SERVICE)
        .refuses("/v1/agent/service/deregister/", 400, "Missing service ID"),
        row(
            "PUT",
            "/v1/agent/service/maintenance/{id}",
            "/v1/agent/service/maintenance/amaint?enable=true&reason=r",
        )
        .after(put("/v1/agent/service/register", "{\"Name\": \"amaint\"}"))
        .writes(
            "service \"amaint\" { policy = \"$A\" }",
            "'service:write' on \"amaint\"",
        )
        .refuses(
            "/v1/agent/service/maintenance/none?enable=true",
            404,
            NO_SERVICE,
        )
        .refuses(
            "/v1/agent/service/maintenance/aweb-1",
            400,
            "Missing value for enable",
        )
        .refuses(
            "/v1/agent/service/maintenance/aweb-1?enable=x",
            400,
            "Invalid value for enable: \"x\"",
        )
        .refuses(
            "/v1/agent/service/maintenance/?enable=true",
            400,
            "Missing service ID",
        ),
    ]
}

fn checks() -> Vec<Row> {
    let update = |verb: &'static str, pattern, path, missing, none| {
        row("PUT", pattern, path)
            .after(CHECK)
            .writes(NODE, OF_NODE)
            .refuses(missing, 400, "Missing check ID")
            .refuses(none, 404, NO_CHECK)
            .body(match verb {
                "update" => "{\"Status\": \"passing\", \"Output\": \"o\"}",
                _ => "",
            })
    };
    let mut changed = update(
        "update",
        "/v1/agent/check/update/{id}",
        "/v1/agent/check/update/own",
        "/v1/agent/check/update/",
        "/v1/agent/check/update/own",
    );
    changed.errors.clear();
    vec![
        row(
            "PUT",
            "/v1/agent/check/register",
            "/v1/agent/check/register",
        )
        .json(CHECK.body)
        .writes(NODE, OF_NODE)
        .refuses_body("{\"TTL\": \"60s\"}", 400, "Missing check name")
        .refuses_body(
            "{\"Name\": \"x\"}",
            400,
            "Invalid check: TTL must be > 0 for TTL checks",
        )
        .refuses_body(
            "{\"Name\": \"x\", \"TTL\": \"60s\", \"ServiceID\": \"none\"}",
            404,
            "ServiceID \"none\" does not exist",
        ),
        row("GET", "/v1/agent/checks", "/v1/agent/checks")
            .after(CHECK)
            .gives(200, "\"own\":{")
            .hides(NODE, 200, "{}")
            .refuses("/v1/agent/checks?filter=made-up%20%3D%3D%201", 500, FILTER),
        update(
            "pass",
            "/v1/agent/check/pass/{id}",
            "/v1/agent/check/pass/own?note=n",
            "/v1/agent/check/pass/",
            "/v1/agent/check/pass/none",
        ),
        update(
            "warn",
            "/v1/agent/check/warn/{id}",
            "/v1/agent/check/warn/own",
            "/v1/agent/check/warn/",
            "/v1/agent/check/warn/none",
        ),
        update(
            "fail",
            "/v1/agent/check/fail/{id}",
            "/v1/agent/check/fail/own",
            "/v1/agent/check/fail/",
            "/v1/agent/check/fail/none",
        ),
        update(
            "deregister",
            "/v1/agent/check/deregister/{id}",
            "/v1/agent/check/deregister/own",
            "/v1/agent/check/deregister/",
            "/v1/agent/check/deregister/none",
        ),
        changed
            .refuses("/v1/agent/check/update/", 400, "Missing check ID")
            .refuses_body("{\"Status\": \"x\"}", 400, "Invalid check status: 'x'"),
    ]
}

fn events() -> Vec<Row> {
    const FIRE: Ask = put("/v1/event/fire/deploy", "$N");
    const OTHER: Ask = put("/v1/event/fire/other", "$N");
    vec![
        row("PUT", "/v1/event/fire/{name}", "/v1/event/fire/deploy")
            .body("payload")
            .gives(200, "\"Name\":\"deploy\"")
            .writes(
                "event \"deploy\" { policy = \"$A\" }",
                "'event:write' on \"deploy\"",
            )
            .refuses("/v1/event/fire/", 400, "Missing name")
            .refuses("/v1/event/fire/deploy?node=(", 400, "Invalid node filter: "),
        row("GET", "/v1/event/list", "/v1/event/list?name=deploy")
            .after(FIRE)
            .gives(200, "\"Name\":\"deploy\"")
            .blocks_here(Mark::Id, FIRE, OTHER)
            .hides("event \"deploy\" { policy = \"$A\" }", 200, "[]"),
    ]
}
