//! How much may be registered, and what do Consul's limits on meta data say?

use std::collections::BTreeMap;

/// Services of one agent at most.
pub const SERVICES_MAX: usize = 8192;
/// Checks of one agent at most, those of services included.
pub const CHECKS_MAX: usize = 16_384;
/// Longest id or name of a service or check, bytes.
pub const ID_BYTES_MAX: usize = 512;
/// Tags of a service at most.
pub const TAGS_MAX: usize = 256;
/// Most pairs of a service's meta data. Consul: `metaMaxKeyPairs`.
pub const META_PAIRS_MAX: usize = 64;
/// Longest key of meta data, bytes. Consul: `metaKeyMaxLength`.
pub const META_KEY_BYTES_MAX: usize = 128;
/// Longest value of meta data, bytes. Consul: `metaValueMaxLength`.
pub const META_VALUE_BYTES_MAX: usize = 512;
/// Output of a check that is kept where its definition does not say otherwise, bytes. Consul:
/// `DefaultBufSize`.
pub const CHECK_OUTPUT_BYTES: usize = 4096;
/// Output of a check that is kept at most, whatever its definition says, bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Consul's `validateMetadata`, in its words.
pub(super) fn check_meta(meta: &BTreeMap<String, String>) -> Result<(), String> {
    if meta.len() > META_PAIRS_MAX {
        return Err(format!(
            "Node metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"
        ));
    }
    for (key, value) in meta {
        if let Err(why) = check_pair(key, value) {
            return Err(format!(
                "Couldn't load metadata pair ('{key}', '{value}'): {why}"
            ));
        }
    }
    Ok(())
}

fn check_pair(key: &str, value: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("Key cannot be blank".into());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !key.bytes().all(allowed) {
        return Err("Key contains invalid characters".into());
    }
    if key.len() > META_KEY_BYTES_MAX {
        return Err(format!(
            "Key is too long (limit: {META_KEY_BYTES_MAX} characters)"
        ));
    }
    if key.starts_with("consul-") {
        return Err("Key prefix 'consul-' is reserved for internal use".into());
    }
    if value.len() > META_VALUE_BYTES_MAX {
        return Err(format!(
            "Value is too long (limit: {META_VALUE_BYTES_MAX} characters)"
        ));
    }
    Ok(())
}

/// Refuses what is longer than an id or a name may be.
pub(super) fn check_name(what: &str, text: &str) -> Result<(), String> {
    if text.len() > ID_BYTES_MAX {
        return Err(format!(
            "{what} of {} bytes is too long, at most {ID_BYTES_MAX} bytes",
            text.len()
        ));
    }
    Ok(())
}
