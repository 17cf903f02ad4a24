//! Locks: this client makes the session, takes the key with it, and lets go when it is dropped.

use std::time::Duration;

use rs_consul::{Consul, ConsulError, LockExpirationBehavior, LockRequest, LockWatchRequest};

use crate::{Cluster, Step, kv::one};

const KEY: &str = "rs/lock";

fn request(key: &'static str) -> LockRequest<'static> {
    LockRequest::builder()
        .key(key)
        .behavior(LockExpirationBehavior::Release)
        .lock_delay(Duration::ZERO)
        .timeout(Duration::from_secs(10))
        .build()
}

pub async fn run(cluster: &Cluster, step: Step) {
    let alive = cluster.alive();
    if step == Step::Killed {
        // What was let go of before can be taken from the next leader, as soon as there is one.
        let lock = take(alive[0]).await;
        drop_blocking(lock);
    }
    for (at, holder) in alive.iter().enumerate() {
        exclusive(holder, alive[(at + 1) % alive.len()]).await;
    }
}

/// The lock; again if its outcome is unknown.
async fn take(consul: &Consul) -> rs_consul::Lock<'_> {
    loop {
        match consul.get_lock(request(KEY), b"mine").await {
            Ok(lock) => return lock,
            Err(error) => assert!(
                error
                    .to_string()
                    .contains("leadership lost while committing log"),
                "{error}"
            ),
        }
    }
}

/// Its drop is a blocking request.
fn drop_blocking(lock: rs_consul::Lock<'_>) {
    tokio::task::block_in_place(|| drop(lock));
}

async fn exclusive(holder: &Consul, rival: &Consul) {
    let lock = take(holder).await;
    let row = one(rival, KEY).await;
    assert_eq!(row.session.as_ref(), Some(&lock.session_id));
    let refused = rival.get_lock(request(KEY), b"theirs").await.unwrap_err();
    let ConsulError::LockAcquisitionFailure(index) = refused else {
        panic!("{refused}");
    };
    // The rival waits until the holder lets go.
    let watch = LockWatchRequest::builder()
        .key(KEY)
        .index(index)
        .wait(Duration::from_secs(60))
        .build();
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop_blocking(lock);
    };
    let (seen, ()) = tokio::join!(rival.watch_lock(watch), release);
    assert_eq!(seen.unwrap().response[0].session, None);
    let lock = take(rival).await;
    assert_eq!(
        one(holder, KEY).await.session.as_ref(),
        Some(&lock.session_id)
    );
    drop_blocking(lock);
}
