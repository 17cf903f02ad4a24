//! Which shard does a command or a query belong to?
//!
//! A key's first segment decides. What would span shards is refused by name: with one shard, as by
//! default, nothing does. Records live in the system shard, 0.

use wire::{
    Command, Failure, FailureKind, KvCommand, KvVerb, Query, QueryBody, RecordKind, ShardId,
    TxnOps, TxnVerb, shard_of,
};

use crate::shard::{Request, failure};

/// The cluster's number of shards, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement(
    /// Number of shards, at least 1.
    pub(super) u16,
);

impl Placement {
    /// Whether the sender of a command or query for `shard` knows where its key belongs: one that
    /// counts other shards than there are would write where nobody reads.
    pub(super) fn check(&self, shard: ShardId, request: &Request) -> Result<(), Failure> {
        if self.0 == 1 {
            return Ok(());
        }
        let wanted = match request {
            Request::Write(command) => self.of_command(command)?,
            // Each shard has a status.
            Request::Read(query) if query.body == QueryBody::Status => return Ok(()),
            Request::Read(query) => self.of_query(query)?,
        };
        if wanted == shard {
            return Ok(());
        }
        let shards = self.0;
        let why = format!("of {shards} shards this key belongs to {wanted}, not to {shard}");
        Err(failure(FailureKind::Invalid, why))
    }

    /// Why no one shard can carry a command out, if none can.
    fn misplaced(&self, command: &KvCommand<'_>) -> Option<String> {
        let tree = command.verb == KvVerb::DeleteTree;
        (self.0 > 1 && tree && !has_full_segment(command.key)).then(|| {
            "a recursive delete of a prefix without a full first segment spans shards".to_owned()
        })
    }

    /// The shard that a command's key belongs to.
    pub(super) fn of_command(&self, command: &[u8]) -> Result<ShardId, Failure> {
        match Command::decode(command) {
            Ok(Command::Kv(kv)) => match self.misplaced(&kv) {
                Some(why) => Err(failure(FailureKind::SpansShards, why)),
                None => Ok(shard_of(kv.key, self.0)),
            },
            Ok(Command::Txn(ops)) => self.of_txn(&ops),
            Ok(Command::Record(record))
                if matches!(record.kind, RecordKind::Session | RecordKind::Txn) && self.0 > 1 =>
            {
                let why = format!(
                    "sessions and transactions on the catalog span shards, which a cluster of {} shards does not support",
                    self.0
                );
                Err(failure(FailureKind::SpansShards, why))
            }
            Ok(_) => Ok(ShardId(0)),
            Err(error) => Err(failure(FailureKind::Internal, error.to_string())),
        }
    }

    /// The shard that all operations of a transaction lie in.
    fn of_txn(&self, ops: &TxnOps<'_>) -> Result<ShardId, Failure> {
        let shards = self.0;
        let mut found = None;
        for op in ops.iter() {
            let prefix = matches!(op.verb, TxnVerb::Kv(KvVerb::DeleteTree) | TxnVerb::GetTree);
            let spans = prefix && shards > 1 && !has_full_segment(op.key);
            let shard = shard_of(op.key, shards);
            if spans || found.is_some_and(|found| found != shard) {
                let why = format!(
                    "a transaction whose keys lie in more than one shard is not supported (this cluster has {shards})"
                );
                return Err(failure(FailureKind::SpansShards, why));
            }
            found = Some(shard);
        }
        Ok(found.unwrap_or_default())
    }

    /// The shard that can answer a query alone.
    pub(super) fn of_query(&self, query: &Query) -> Result<ShardId, Failure> {
        if self.0 == 1 {
            return Ok(ShardId(0));
        }
        let spans = |what: &str| {
            Err(failure(
                FailureKind::SpansShards,
                format!(
                    "{what} spans shards, which a cluster of {} shards does not support",
                    self.0
                ),
            ))
        };
        match &query.body {
            QueryBody::KvGet { key } => Ok(shard_of(key, self.0)),
            // Records live in the system shard.
            QueryBody::Status | QueryBody::Record(_) => Ok(ShardId(0)),
            QueryBody::Txn(command) => self.of_command(command),
            QueryBody::KvList { prefix, .. } | QueryBody::KvKeys { prefix, .. } => {
                match has_full_segment(prefix) {
                    true => Ok(shard_of(prefix, self.0)),
                    false => spans("a listing of a prefix without a full first segment"),
                }
            }
            QueryBody::KvWatch { prefix, .. } => match has_full_segment(prefix) {
                true => Ok(shard_of(prefix, self.0)),
                false => spans("a watch of a prefix without a full first segment"),
            },
        }
    }
}

/// Whether every key with this prefix lies in one shard: its first segment is complete.
pub fn has_full_segment(prefix: &[u8]) -> bool {
    let start = prefix
        .iter()
        .position(|byte| *byte != b'/')
        .unwrap_or(prefix.len());
    prefix[start..].contains(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_lies_in_one_shard_only_when_its_first_segment_is_complete() {
        for (prefix, full) in [
            ("", false),
            ("a", false),
            ("a/", true),
            ("/a", false),
            ("//a/b", true),
            ("/", false),
        ] {
            assert_eq!(has_full_segment(prefix.as_bytes()), full, "{prefix:?}");
        }
    }
}
