//! (being built)
pub mod config;
pub mod gateway;
pub mod http;
pub mod nearest;
