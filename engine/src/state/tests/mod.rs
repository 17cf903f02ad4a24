//! The store against plain models.

mod gadgets;
mod kv_reads;
mod records;
mod transactions;
