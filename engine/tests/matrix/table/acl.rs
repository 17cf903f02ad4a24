//! Tokens, policies and roles.

use super::super::row::{Ask, Row, put, row};

const RULE: &str = "acl = \"$A\"";
const READ: &str = "'acl:read'";
const WRITE: &str = "'acl:write'";
const NO_METHODS: &str = "auth methods are not supported";

const KEY: Ask = put("/v1/kv/elsewhere", "$N");
const TOKEN: Ask = put("/v1/acl/token", "{\"Description\": \"d\"}");
const POLICY: Ask = put("/v1/acl/policy", "{\"Name\": \"made-$N\"}");
const ROLE: Ask = put("/v1/acl/role", "{\"Name\": \"made-$N\"}");

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("PUT", "/v1/acl/bootstrap", "/v1/acl/bootstrap").gives(
            403,
            "Permission denied: ACL bootstrap no longer allowed (reset index: ",
        ),
        row("GET", "/v1/acl/replication", "/v1/acl/replication").gives(200, "\"Enabled\":false"),
        row("GET", "/v1/acl/auth-methods", "/v1/acl/auth-methods")
            .gives(200, "[]")
            .reads(RULE, READ),
        row("GET", "/v1/acl/binding-rules", "/v1/acl/binding-rules")
            .gives(200, "[]")
            .reads(RULE, READ),
        row("POST", "/v1/acl/login", "/v1/acl/login").gives(500, NO_METHODS),
        row("POST", "/v1/acl/logout", "/v1/acl/logout").gives(500, NO_METHODS),
        row("PUT", "/v1/acl/auth-method", "/v1/acl/auth-method").gives(500, NO_METHODS),
        row("PUT", "/v1/acl/binding-rule", "/v1/acl/binding-rule").gives(500, NO_METHODS),
    ];
    for method in ["GET", "PUT", "DELETE"] {
        rows.push(
            row(
                method,
                "/v1/acl/auth-method/{name}",
                "/v1/acl/auth-method/x",
            )
            .gives(500, NO_METHODS),
        );
        rows.push(
            row(
                method,
                "/v1/acl/binding-rule/{id}",
                "/v1/acl/binding-rule/x",
            )
            .gives(500, NO_METHODS),
        );
    }
    rows.extend(tokens());
    rows.extend(policies());
    rows.extend(roles());
    rows
}

fn tokens() -> Vec<Row> {
    vec![
        row("GET", "/v1/acl/tokens", "/v1/acl/tokens")
            .gives(200, "\"AccessorID\"")
            .blocks(TOKEN, KEY)
            .reads(RULE, READ),
        row("GET", "/v1/acl/token/self", "/v1/acl/token/self")
            .gives(200, "\"SecretID\"")
            .own(
                (200, "\"SecretID\":\"anonymous\""),
                (404, "Supplied token does not exist"),
            ),
        row("PUT", "/v1/acl/token", "/v1/acl/token")
            .json("{\"Description\": \"d\"}")
            .gives(200, "\"SecretID\"")
            .writes(RULE, WRITE)
            .refuses_body(
                "{\"Polices\": []}",
                400,
                "Token decoding failed: unknown field",
            )
            .refuses_body(
                "{\"AccessorID\": \"x\"}",
                500,
                "Invalid Token: AccessorID is not a valid UUID",
            )
            .refuses_body(
                "{\"ExpirationTTL\": \"1s\"}",
                500,
                "cannot be less than 1m0s",
            )
            .refuses_body("{\"Policies\": [{\"Name\": \"none\"}]}", 500, "none"),
        row("GET", "/v1/acl/token/{id}", "/v1/acl/token/$ID")
            .after(TOKEN)
            .gives(200, "\"AccessorID\":\"$ID\"")
            .blocks(put("/v1/acl/token/$ID", "{\"Description\": \"$N\"}"), KEY)
            .reads(RULE, READ)
            .refuses(
                "/v1/acl/token/a0000000-0000-4000-8000-000000000000",
                404,
                "Requested token does not exist: ACL not found",
            ),
        row("PUT", "/v1/acl/token/{id}", "/v1/acl/token/$ID")
            .after(TOKEN)
            .json("{\"Description\": \"changed\"}")
            .gives(200, "\"Description\":\"changed\"")
            .writes(RULE, WRITE)
            .refuses_body(
                "{\"AccessorID\": \"a0000000-0000-4000-8000-000000000000\"}",
                400,
                "Token Accessor ID in URL and payload do not match",
            ),
        row("DELETE", "/v1/acl/token/{id}", "/v1/acl/token/$ID")
            .after(TOKEN)
            .gives(200, "true")
            .writes(RULE, WRITE)
            .refuses(
                "/v1/acl/token/a0000000-0000-4000-8000-000000000000",
                404,
                "Cannot find token to delete",
            ),
        row("PUT", "/v1/acl/token/{id}/clone", "/v1/acl/token/$ID/clone")
            .after(TOKEN)
            .gives(200, "\"Description\":\"d\"")
            .writes(RULE, WRITE)
            .refuses(
                "/v1/acl/token/a0000000-0000-4000-8000-000000000000/clone",
                404,
                "Requested token does not exist: ACL not found",
            ),
    ]
}

fn policies() -> Vec<Row> {
    vec![
        row("GET", "/v1/acl/policies", "/v1/acl/policies")
            .gives(200, "\"global-management\"")
            .blocks(POLICY, KEY)
            .reads(RULE, READ),
        row("PUT", "/v1/acl/policy", "/v1/acl/policy")
            .json("{\"Name\": \"made-$N\", \"Rules\": \"key_prefix \\\"a\\\" { policy = \\\"read\\\" }\"}")
            .gives(200, "\"Name\":\"made-$N\"")
            .writes(RULE, WRITE)
            .refuses_body("{}", 500, "Invalid Policy: no Name is set")
            .refuses_body("{\"Name\": \"a b\"}", 500, "Invalid Policy: invalid Name.")
            .refuses_body(
                "{\"Name\": \"global-management\"}",
                500,
                "Invalid Policy: A Policy with Name \"global-management\" already exists",
            )
            .refuses_body(
                "{\"Name\": \"x\", \"Rules\": \"kee\"}",
                500,
                "Failed to parse ACL rules: ",
            )
            .refuses_body(
                "{\"Name\": \"x\", \"ID\": \"a0000000-0000-4000-8000-000000000000\"}",
                400,
                "Cannot specify the ID when creating a new policy",
            ),
        row("GET", "/v1/acl/policy/name/{name}", "/v1/acl/policy/name/global-management")
            .gives(200, "\"Rules\":")
            .modes()
            .reads(RULE, READ)
            .refuses("/v1/acl/policy/name/none", 404, "Requested policy does not exist"),
        row("GET", "/v1/acl/policy/{id}", "/v1/acl/policy/$ID")
            .after(POLICY)
            .gives(200, "\"ID\":\"$ID\"")
            .blocks(put("/v1/acl/policy/$ID", "{\"Name\": \"new-$N\"}"), KEY)
            .reads(RULE, READ)
            .refuses(
                "/v1/acl/policy/a0000000-0000-4000-8000-000000000000",
                404,
                "Requested policy does not exist: ACL not found",
            ),
        row("PUT", "/v1/acl/policy/{id}", "/v1/acl/policy/$ID")
            .after(POLICY)
            .json("{\"Name\": \"changed-$N\"}")
            .gives(200, "\"Name\":\"changed-$N\"")
            .writes(RULE, WRITE)
            .refuses_body(
                "{\"Name\": \"x\", \"ID\": \"a0000000-0000-4000-8000-000000000000\"}",
                400,
                "Policy ID in URL and payload do not match",
            ),
        row("DELETE", "/v1/acl/policy/{id}", "/v1/acl/policy/$ID")
            .after(POLICY)
            .gives(200, "true")
            .writes(RULE, WRITE)
            .refuses(
                "/v1/acl/policy/a0000000-0000-4000-8000-000000000000",
                404,
                "Cannot find policy to delete",
            ),
    ]
}

fn roles() -> Vec<Row> {
    vec![
        row("GET", "/v1/acl/roles", "/v1/acl/roles")
            .after(ROLE)
            .gives(200, "\"Name\":\"made-$N\"")
            .blocks(ROLE, KEY)
            .reads(RULE, READ),
        row("PUT", "/v1/acl/role", "/v1/acl/role")
            .json("{\"Name\": \"made-$N\", \"Policies\": [{\"Name\": \"global-management\"}]}")
            .gives(200, "\"Name\":\"made-$N\"")
            .writes(RULE, WRITE)
            .refuses_body("{}", 500, "Invalid Role: no Name is set")
            .refuses_body("{\"Name\": \"a b\"}", 500, "Invalid Role: invalid Name."),
        row(
            "GET",
            "/v1/acl/role/name/{name}",
            "/v1/acl/role/name/made-$N",
        )
        .after(ROLE)
        .gives(200, "\"ID\":\"$ID\"")
        .modes()
        .reads(RULE, READ)
        .refuses(
            "/v1/acl/role/name/none",
            404,
            "Requested role does not exist",
        ),
        row("GET", "/v1/acl/role/{id}", "/v1/acl/role/$ID")
            .after(ROLE)
            .gives(200, "\"ID\":\"$ID\"")
            .modes()
            .reads(RULE, READ)
            .refuses(
                "/v1/acl/role/a0000000-0000-4000-8000-000000000000",
                404,
                "Requested role does not exist: ACL not found",
            ),
        row("PUT", "/v1/acl/role/{id}", "/v1/acl/role/$ID")
            .after(ROLE)
            .json("{\"Name\": \"changed-$N\"}")
            .gives(200, "\"Name\":\"changed-$N\"")
            .writes(RULE, WRITE)
            .refuses_body(
                "{\"Name\": \"x\", \"ID\": \"a0000000-0000-4000-8000-000000000000\"}",
                400,
                "Role ID in URL and payload do not match",
            ),
        row("DELETE", "/v1/acl/role/{id}", "/v1/acl/role/$ID")
            .after(ROLE)
            .gives(200, "true")
            .writes(RULE, WRITE)
            .refuses(
                "/v1/acl/role/a0000000-0000-4000-8000-000000000000",
                404,
                "Cannot find role to delete",
            ),
    ]
}
