//! Blocking queries: a change comes at once, through the death of the leader too.

use std::time::{Duration, Instant};

use rs_consul::{Consul, ReadKeyRequest, ReadKeyResponse};
use tokio::task::JoinHandle;

use crate::{
    Cluster, Step, client,
    kv::{one, read, set},
};

const KEY: &str = "rs/hanging";

/// Queries that wait while the leader dies, one at each server.
pub struct Hanging(Vec<(String, JoinHandle<Option<String>>)>);

impl Hanging {
    /// Begins them, if watches are asked for.
    pub async fn over(addresses: &[String], wanted: bool) -> Self {
        let mut tasks = Vec::new();
        for address in addresses.iter().filter(|_| wanted) {
            let consul = client(address);
            set(&consul, KEY, "old").await;
            tasks.push((address.clone(), tokio::spawn(changed(consul))));
        }
        Self(tasks)
    }

    /// Changes what they wait for: those at servers that live must see it.
    pub async fn ends(self, cluster: &Cluster) {
        if self.0.is_empty() {
            return;
        }
        set(cluster.alive()[0], KEY, "new").await;
        for (address, task) in self.0 {
            let seen = tokio::time::timeout(Duration::from_secs(60), task).await;
            let seen = seen.expect("it wakes").expect("it does not panic");
            if cluster.dead.as_ref() != Some(&address) {
                assert_eq!(seen.as_deref(), Some("new"), "{address}");
            }
        }
    }
}

/// The value of [`KEY`] once it is not the old one any more; `None` when the server died.
async fn changed(consul: Consul) -> Option<String> {
    let mut index = read(&consul, KEY).await.ok()?.1;
    loop {
        let (rows, next) = wait(&consul, KEY, index, 20).await?;
        let value = rows.into_iter().next()?.value?;
        if value != "old" {
            return Some(value);
        }
        index = next;
    }
}

async fn wait(
    consul: &Consul,
    key: &str,
    index: u64,
    seconds: u64,
) -> Option<(Vec<ReadKeyResponse>, u64)> {
    let request = ReadKeyRequest::builder()
        .key(key)
        .index(index)
        .wait(Duration::from_secs(seconds))
        .build();
    let found = consul.read_key(request).await.ok()?;
    Some((found.response, found.index))
}

pub async fn run(cluster: &Cluster, step: Step) {
    let alive = cluster.alive();
    let (one_server, other) = (alive[0], alive[alive.len() - 1]);
    set(one_server, "rs/watch", "1").await;
    let (_, index) = read(other, "rs/watch").await.unwrap();
    let write = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        set(one_server, "rs/watch", "2").await;
    };
    let (woken, ()) = tokio::join!(wait(other, "rs/watch", index, 60), write);
    let (rows, next) = woken.expect("a blocking query is answered");
    assert_eq!(rows[0].value.as_deref(), Some("2"));
    assert!(next > index);
    assert_eq!(one(one_server, "rs/watch").await.modify_index as u64, next);
    if step == Step::Before {
        // Without a change it ends by itself, with the index that it was asked with.
        let began = Instant::now();
        let (_, same) = wait(other, "rs/watch", next, 1).await.unwrap();
        assert_eq!(same, next);
        assert!(began.elapsed() >= Duration::from_secs(1));
    }
}
