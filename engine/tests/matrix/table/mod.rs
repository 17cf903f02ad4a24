//! What each route does, by family.

pub mod acl;
pub mod agent;
pub mod catalog;
pub mod cluster;
pub mod kv;
pub mod queries;
