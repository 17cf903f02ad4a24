//! Where is a node, by the round trips to it?

use serde::{Deserialize, Serialize};

use super::Record;
use crate::state::index::Key;

/// A place in the space of round-trip times (Vivaldi). Consul: `coordinate.Coordinate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Coord {
    /// Euclidean part, seconds per dimension.
    pub vec: Vec<f64>,
    /// How far off it may be, without a unit.
    pub error: f64,
    /// Correction from recent observations, seconds.
    pub adjustment: f64,
    /// Distance that no place in space accounts for, seconds.
    pub height: f64,
}

/// The coordinate of a node in a network segment. Consul: `structs.Coordinate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Coordinate {
    /// The node.
    pub node: String,
    /// Network segment; empty for the only one.
    pub segment: String,
    /// The place.
    pub coord: Coord,
}

impl Record for Coordinate {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.node).lower(&self.segment);
    }
}
