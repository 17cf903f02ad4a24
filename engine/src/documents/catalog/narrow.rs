//! Which rows of an answer stay, and in which order?

use serde::{Deserialize, Serialize};

use crate::{
    filter::{Filter, FilterError, Shape},
    fsm::catalog::nodes,
    state::{
        RecordRow, Tables,
        index::Arg,
        records::{Coord, Coordinate},
        schema::COORDINATES_NODE,
    },
};

/// What narrows and orders an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Narrow {
    /// An expression that rows must fulfil; empty for all.
    pub filter: String,
    /// Pairs that a row's node must have in its meta.
    pub node_meta: Vec<(String, String)>,
    /// The node that the nearest rows come first from; empty for the order of names.
    pub near: String,
}

impl Narrow {
    pub(super) fn filter(&self, shape: &Shape) -> Result<Filter, FilterError> {
        Filter::parse(&self.filter, shape)
    }
}

/// The same with what it takes to apply it.
pub(super) struct Narrowed<'t> {
    pub(super) tables: &'t Tables,
    pub(super) narrow: &'t Narrow,
    pub(super) filter: Filter,
}

impl Narrowed<'_> {
    /// Whether a row, as it is shown, passes the filter.
    pub(super) fn passes(&self, row: &impl Serialize) -> bool {
        self.filter.is_empty()
            || serde_json::to_value(row).is_ok_and(|row| self.filter.matches(&row))
    }

    /// Whether a row of this node stays.
    pub(super) fn has_node(&self, node: &str) -> bool {
        let pairs = &self.narrow.node_meta;
        pairs.is_empty()
            || nodes::get(self.tables, node).is_some_and(|node| {
                pairs
                    .iter()
                    .all(|(key, value)| node.meta.get(key) == Some(value))
            })
    }

    /// Puts rows in order of their nodes' distance, if that is asked for and known: Consul's round
    /// trip times, the unknown last, and equals as they were.
    pub(super) fn sort<R>(&self, rows: &mut [R], node: impl Fn(&R) -> &str) {
        nearest_first(self.tables, &self.narrow.near, rows, node);
    }
}

/// Puts rows in order of their nodes' distance from the node `near`, if both are known.
pub(in crate::documents) fn nearest_first<R>(
    tables: &Tables,
    near: &str,
    rows: &mut [R],
    node: impl Fn(&R) -> &str,
) {
    let from = coordinates(tables, near);
    if near.is_empty() || from.is_empty() {
        return;
    }
    rows.sort_by_cached_key(|row| {
        let seconds = distance_s(&from, &coordinates(tables, node(row)));
        // Not negative, so the bits sort as the numbers do.
        seconds.max(0.0).to_bits()
    });
}

fn coordinates(tables: &Tables, node: &str) -> Vec<RecordRow<Coordinate>> {
    let mut found = Vec::new();
    tables
        .coordinates
        .find(&COORDINATES_NODE, &[Arg::Text(node)], |place| {
            found.push(place.clone());
            true
        })
        .expect("the query fits the index");
    found
}

/// Round trip between two nodes, seconds, by the first segment that both are in.
fn distance_s(from: &[RecordRow<Coordinate>], to: &[RecordRow<Coordinate>]) -> f64 {
    let both = from.iter().find_map(|from| {
        let to = to.iter().find(|to| to.segment == from.segment)?;
        Some(between_s(&from.coord, &to.coord))
    });
    both.unwrap_or(f64::INFINITY)
}

/// Vivaldi: the distance in space and both heights, adjusted unless that leaves nothing.
fn between_s(a: &Coord, b: &Coord) -> f64 {
    if a.vec.len() != b.vec.len() {
        return f64::INFINITY;
    }
    let squares = a.vec.iter().zip(&b.vec).map(|(a, b)| (a - b) * (a - b));
    let raw = squares.sum::<f64>().sqrt() + a.height + b.height;
    let adjusted = raw + a.adjustment + b.adjustment;
    let seconds = if adjusted > 0.0 { adjusted } else { raw };
    if seconds.is_nan() {
        f64::INFINITY
    } else {
        seconds
    }
}
