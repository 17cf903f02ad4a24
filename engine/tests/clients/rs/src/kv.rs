//! Keys and values.
//!
//! This client always says `recurse`, also as `recurse=false`; for Consul, and so for us, a
//! parameter that is there is on. So a read of one key reads all that begin with it, a deletion
//! too, and a check-and-set deletion is a conflict of flags.

use rs_consul::{
    ConsistencyMode, Consul, ConsulError, CreateOrUpdateKeyRequest, DeleteKeyRequest,
    ReadKeyRequest, ReadKeyResponse,
};

use crate::{Cluster, Step};

/// A write, again if its outcome is unknown: it went to a leader that died before it answered, and
/// may or may not take effect. Consul's clients meet the same answer with the same remedy.
pub async fn put(consul: &Consul, request: CreateOrUpdateKeyRequest<'_>, value: &[u8]) -> bool {
    loop {
        match consul
            .create_or_update_key(request.clone(), value.to_vec())
            .await
        {
            Ok((done, _)) => return done,
            Err(error) => assert!(
                error
                    .to_string()
                    .contains("leadership lost while committing log"),
                "{error}"
            ),
        }
    }
}

pub async fn set(consul: &Consul, key: &str, value: &str) {
    let request = CreateOrUpdateKeyRequest::builder().key(key).build();
    assert!(put(consul, request, value.as_bytes()).await);
}

/// All keys with this prefix, and the index.
pub async fn read(consul: &Consul, key: &str) -> Result<(Vec<ReadKeyResponse>, u64), ConsulError> {
    let request = ReadKeyRequest::builder().key(key).build();
    let found = consul.read_key(request).await?;
    Ok((found.response, found.index))
}

pub async fn one(consul: &Consul, key: &str) -> ReadKeyResponse {
    let (mut rows, _) = read(consul, key).await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

pub async fn run(cluster: &Cluster, step: Step) {
    let alive = cluster.alive();
    match step {
        Step::Before => set(alive[0], "rs/survives", "before").await,
        Step::Killed => {
            set(alive[0], "rs/survives", "after").await;
            let row = one(alive[1], "rs/survives").await;
            assert_eq!(row.value.as_deref(), Some("after"));
            assert!(row.modify_index > row.create_index);
        }
        Step::After => {
            for consul in &alive {
                for mode in [
                    ConsistencyMode::Default,
                    ConsistencyMode::Consistent,
                    ConsistencyMode::Stale,
                ] {
                    let request = ReadKeyRequest::builder()
                        .key("rs/survives")
                        .consistency(mode)
                        .build();
                    let rows = consul.read_key(request).await.unwrap().response;
                    assert_eq!(rows[0].value.as_deref(), Some("after"));
                }
            }
        }
    }
    for consul in alive {
        basics(consul).await;
        check_and_set(consul).await;
        listings(consul).await;
    }
}

async fn delete(consul: &Consul, key: &str) {
    let request = DeleteKeyRequest::builder().key(key).recurse(true).build();
    assert!(consul.delete_key(request).await.unwrap());
}

async fn missing(consul: &Consul, key: &str) {
    let error = read(consul, key).await.unwrap_err();
    let missing = matches!(&error, ConsulError::UnexpectedResponseCode(code, _) if *code == 404);
    assert!(missing, "{error}");
}

async fn basics(consul: &Consul) {
    delete(consul, "rs/basics/").await;
    missing(consul, "rs/basics/a").await;
    let request = CreateOrUpdateKeyRequest::builder()
        .key("rs/basics/a")
        .flags(u64::MAX)
        .build();
    assert!(put(consul, request, "text \u{1f600}".as_bytes()).await);
    let row = one(consul, "rs/basics/a").await;
    assert_eq!(row.value.as_deref(), Some("text \u{1f600}"));
    assert_eq!(
        (row.flags, row.lock_index, &row.session),
        (u64::MAX, 0, &None)
    );
    assert_eq!(row.create_index, row.modify_index);
    set(consul, "rs/basics/a", "").await;
    let empty = one(consul, "rs/basics/a").await;
    assert_eq!((empty.value, empty.flags), (None, 0));
    assert!(empty.modify_index > row.modify_index);
    // The blocking twin of the same call.
    let request = CreateOrUpdateKeyRequest::builder()
        .key("rs/basics/sync")
        .build();
    let done =
        tokio::task::block_in_place(|| consul.create_or_update_key_sync(request, b"sync".to_vec()));
    assert!(done.unwrap());
    assert_eq!(
        one(consul, "rs/basics/sync").await.value.as_deref(),
        Some("sync")
    );
    delete(consul, "rs/basics/").await;
    missing(consul, "rs/basics/").await;
}

async fn check_and_set(consul: &Consul) {
    let cas = |index: i64| {
        CreateOrUpdateKeyRequest::builder()
            .key("rs/cas")
            .check_and_set(index)
            .build()
    };
    delete(consul, "rs/cas").await;
    assert!(!put(consul, cas(17), b"1").await);
    assert!(put(consul, cas(0), b"1").await);
    assert!(!put(consul, cas(0), b"2").await);
    let old = one(consul, "rs/cas").await.modify_index;
    assert!(put(consul, cas(old), b"3").await);
    assert!(!put(consul, cas(old), b"4").await);
    assert_eq!(one(consul, "rs/cas").await.value.as_deref(), Some("3"));
    let request = DeleteKeyRequest::builder()
        .key("rs/cas")
        .check_and_set(u32::try_from(old).unwrap())
        .build();
    let error = consul.delete_key(request).await.unwrap_err().to_string();
    assert!(error.contains("Conflicting flags"), "{error}");
    let request = DeleteKeyRequest::builder().key("rs/cas").build();
    assert!(consul.delete_key(request).await.unwrap());
}

async fn listings(consul: &Consul) {
    delete(consul, "rs/list").await;
    let names = ["rs/list/a", "rs/list/b/1", "rs/list/b/2", "rs/listed"];
    for name in names.iter().rev() {
        set(consul, name, name).await;
    }
    let (rows, index) = read(consul, "rs/list").await.unwrap();
    let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, names);
    assert!(rows.iter().all(|row| row.modify_index as u64 <= index));
    // See above: it asks for `recurse=false`, and means one key.
    let request = DeleteKeyRequest::builder().key("rs/list/b").build();
    assert!(consul.delete_key(request).await.unwrap());
    assert_eq!(read(consul, "rs/list").await.unwrap().0.len(), 2);
    delete(consul, "rs/list").await;
}
