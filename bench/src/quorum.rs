//! How many servers must agree, and how many may fail?
//!
//! Raft §5.2: a quorum is any majority, so that two quorums always share a server. Even sizes
//! tolerate no more failures than the odd size below them, which is what the deployment table
//! is there to show.

/// Fewest servers that may commit in a cluster of `servers` (≥ 1).
pub const fn quorum(servers: usize) -> usize {
    servers / 2 + 1
}

/// Most servers of `servers` that may fail while the rest still commits.
pub const fn tolerance(servers: usize) -> usize {
    servers - quorum(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Consul's deployment table, <https://developer.hashicorp.com/consul/docs/architecture/consensus>.
    #[test]
    fn matches_the_published_deployment_table() {
        let table = [
            (1, 1, 0),
            (2, 2, 0),
            (3, 2, 1),
            (4, 3, 1),
            (5, 3, 2),
            (6, 4, 2),
            (7, 4, 3),
        ];
        for (servers, q, t) in table {
            assert_eq!(
                (quorum(servers), tolerance(servers)),
                (q, t),
                "{servers} servers"
            );
        }
    }

    #[test]
    fn two_quorums_always_share_a_server_and_tolerance_leaves_a_quorum() {
        for n in 1..1000 {
            assert!(2 * quorum(n) > n);
            assert_eq!(n - tolerance(n), quorum(n));
            assert!(
                n - tolerance(n) - 1 < quorum(n),
                "one more failure stops it"
            );
        }
    }
}
