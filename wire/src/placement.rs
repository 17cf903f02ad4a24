//! Which shard does a key belong to?
//!
//! Every server and every client must give the same answer for the life of a cluster, so the hash
//! is a published one with a fixed seed, and the answers are golden-tested. All keys below one
//! first path segment lie together: most listings and recursive deletes then concern one shard.

use xxhash_rust::xxh64::xxh64;

use crate::ShardId;

/// The shard of `key` in a cluster of `shards` shards: XXH64 (seed 0) of the first non-empty path
/// segment, modulo `shards`. A key without one (`""`, `"/"`) is hashed as the empty segment.
///
/// # Panics
///
/// If `shards` is 0: a cluster has at least the system shard.
pub fn shard_of(key: &[u8], shards: u16) -> ShardId {
    assert!(shards > 0, "a cluster has at least one shard");
    if shards == 1 {
        return ShardId(0);
    }
    let segment = first_segment(key);
    ShardId((xxh64(segment, 0) % u64::from(shards)) as u16)
}

/// Whether keys that begin with `prefix` can belong to different shards: the prefix has no whole
/// first segment, so it does not say which shard they are in.
///
/// ```
/// assert!(wire::spans_shards(b"serv", 4) && !wire::spans_shards(b"serv/", 4));
/// ```
pub fn spans_shards(prefix: &[u8], shards: u16) -> bool {
    let leading = prefix.iter().take_while(|&&byte| byte == b'/').count();
    shards > 1 && !prefix[leading..].contains(&b'/')
}

fn first_segment(key: &[u8]) -> &[u8] {
    key.split(|&byte| byte == b'/')
        .find(|segment| !segment.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_non_empty_segment_decides() {
        for (key, segment) in [
            ("", ""),
            ("/", ""),
            ("///", ""),
            ("a", "a"),
            ("/a", "a"),
            ("//a/b", "a"),
            ("a/b/c", "a"),
            ("a//b", "a"),
        ] {
            assert_eq!(first_segment(key.as_bytes()), segment.as_bytes(), "{key:?}");
        }
    }

    #[test]
    fn a_prefix_with_a_whole_segment_is_in_one_shard() {
        for (prefix, spans) in [
            ("", true),
            ("/", true),
            ("//", true),
            ("a", true),
            ("/a", true),
            ("a/", false),
            ("//a/", false),
            ("a/b", false),
        ] {
            assert_eq!(spans_shards(prefix.as_bytes(), 4), spans, "{prefix:?}");
            assert!(!spans_shards(prefix.as_bytes(), 1), "one shard holds all");
        }
    }

    /// These answers are stored with every cluster's data: they may never change.
    #[test]
    fn answers_never_change() {
        for (key, of_4, of_7, of_64) in [
            ("", 1, 6, 25),
            ("a", 3, 6, 27),
            ("service/web", 2, 6, 50),
            ("/service/db", 2, 6, 50),
            ("config/site/eu", 0, 0, 40),
            ("lock/leader", 0, 4, 28),
            ("0123456789abcdefghijklmnopqrstuvwxyz/x", 1, 3, 57),
        ] {
            let key = key.as_bytes();
            assert_eq!(shard_of(key, 1), ShardId(0));
            let found = [4, 7, 64].map(|shards| shard_of(key, shards).0);
            assert_eq!(found, [of_4, of_7, of_64], "{key:?}");
        }
    }

    /// The published XXH64 test value for no input, so that the hash itself is the published one.
    #[test]
    fn hash_is_the_published_one() {
        assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
    }
}
