//! What is registered with this very server, and how is it doing?
//!
//! In Consul every machine runs an agent; applications register their services and checks with the
//! one beside them, and it keeps the catalog in step. A server of ours is such an agent too. There
//! is one [`Local`](local::Local) per server, on its first executor.
//!
//! ```text
//! local      what is registered, sans-io: definitions, statuses, deadlines, files
//! ```

pub mod local;
