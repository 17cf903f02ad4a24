//! Is the checked-in generated code that of the checked-in schema?
//!
//! `flatc` is not needed to build or test, so nothing regenerates on its own. Instead a digest of
//! the schema's tokens is kept beside the generated file and compared by a plain `cargo test`;
//! comments and layout may change freely.

use std::{env, fs, path::Path};

const SCHEMA: &str = include_str!("../schema/wire.fbs");
const DIGEST_FILE: &str = "src/generated.xxh64";

/// The schema's tokens, a space between each two.
fn normalised(schema: &str) -> String {
    let code = schema
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    let tokens: Vec<&str> = code.flat_map(str::split_whitespace).collect();
    tokens.join(" ")
}

fn digest(schema: &str) -> String {
    let digest = xxhash_rust::xxh64::xxh64(normalised(schema).as_bytes(), 0);
    format!("{digest:016x}\n")
}

#[test]
fn generated_code_is_that_of_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIGEST_FILE);
    if env::var_os("WIRE_REGEN").is_some() {
        fs::write(&path, digest(SCHEMA)).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        recorded,
        digest(SCHEMA),
        "wire/schema/wire.fbs changed since wire/src/generated.rs was made: run scripts/regen-wire"
    );
}

#[test]
fn digest_sees_tokens_only() {
    let one = digest("table A { x:ulong; } // why");
    assert_eq!(one, digest("// head\ntable A {\n  x:ulong;\n}\n"));
    assert_ne!(one, digest("table A { x:uint; }"));
}
