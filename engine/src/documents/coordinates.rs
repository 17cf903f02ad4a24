//! What do Consul's endpoints for coordinates answer?
//!
//! The index of every answer is the table's; a blocking query wakes for its own node, or for any.

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{Subject, json};
use crate::state::{
    Tables,
    index::Arg,
    records::{Coordinate, RecordRow},
    schema::{COORDINATES_NODE, Coordinates, RowChange},
    table::TableDef,
};

/// A question about coordinates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CoordinatesQuestion {
    /// Of all nodes: `GET /v1/coordinate/nodes`.
    Nodes {
        /// Of this segment only, if one is named.
        segment: Option<String>,
    },
    /// Of one node: `GET /v1/coordinate/node/<node>`.
    Node {
        /// The node.
        node: String,
        /// As above.
        segment: Option<String>,
    },
}

impl CoordinatesQuestion {
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Nodes { .. } => Subject::table(Coordinates::ID),
            Self::Node { node, .. } => Subject::named(Coordinates::ID, node),
        }
    }

    pub(super) fn index(&self, tables: &Tables) -> Index {
        tables.max_index(&[Coordinates::NAME])
    }

    pub(super) fn answer(&self, tables: &Tables) -> Vec<u8> {
        let mut found: Vec<RecordRow<Coordinate>> = Vec::new();
        let (Self::Nodes { segment } | Self::Node { segment, .. }) = self;
        let mut take = |row: &RecordRow<Coordinate>| {
            if segment.as_ref().is_none_or(|wanted| row.segment == *wanted) {
                found.push(row.clone());
            }
            true
        };
        match self {
            Self::Nodes { .. } => {
                let mut cursor = tables.coordinates.view().cursor();
                while cursor.scan(&mut take) {}
            }
            Self::Node { node, .. } => {
                let query: &[Arg<'_>] = &[Arg::Text(node)];
                let rows = tables.coordinates.find(&COORDINATES_NODE, query, take);
                rows.expect("the query fits its index");
            }
        }
        let rows: Vec<&Coordinate> = found.iter().map(|row| &**row).collect();
        json(&rows)
    }
}

/// The subjects of a change. These rows have no index by which one could tell old from new.
pub(super) fn touched(change: &RowChange<RecordRow<Coordinate>>, each: &mut dyn FnMut(Subject)) {
    each(Subject::table(Coordinates::ID));
    match change {
        RowChange::Put { new: row, .. } | RowChange::Removed { old: row } => {
            each(Subject::named(Coordinates::ID, &row.node));
        }
        RowChange::PrefixRemoved { prefix, before } => {
            let mut gone = before.prefix(prefix);
            while gone.scan(|row| {
                each(Subject::named(Coordinates::ID, &row.node));
                true
            }) {}
        }
    }
}
