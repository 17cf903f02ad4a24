//! Where are nodes, by the round trips to them?
//!
//! Clients measure and say so (`PUT /v1/coordinate/update`); the catalog keeps the last word for
//! each node and segment. What is said of a node that is not there is passed over, as in Consul.

use serde::{Deserialize, Serialize};
use wire::Index;

use super::nodes;
use crate::state::{
    Txn,
    records::{Coord, Coordinate},
    schema::Coordinates,
    tree::Keyed,
};

/// Dimensions of a coordinate's Euclidean part (serf's default).
pub const DIMENSIONS: usize = 8;

/// Coordinates of nodes. Consul: `structs.Coordinates`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct CoordinatesRequest {
    /// Each of a node and segment.
    pub updates: Vec<Coordinate>,
}

/// Keeps coordinates; false if none of them is of a node that is there.
pub fn update(
    txn: &mut Txn<'_>,
    index: Index,
    request: &CoordinatesRequest,
) -> Result<bool, String> {
    let mut any = false;
    for update in &request.updates {
        valid(&update.coord)?;
        if nodes::get(txn.tables(), &update.node).is_none() {
            continue;
        }
        let row = crate::state::records::RecordRow::new(update.clone());
        let row = row.map_err(|error| error.to_string())?;
        let held = txn.tables().coordinates.get(row.key());
        any = true;
        if held.is_none_or(|held| **held != *update) {
            txn.put_record::<Coordinates, _>(update.clone())
                .map_err(|error| error.to_string())?;
            txn.touch::<Coordinates>(index);
        }
    }
    Ok(any)
}

fn valid(coord: &Coord) -> Result<(), String> {
    let numbers = [coord.error, coord.adjustment, coord.height];
    if !coord.vec.iter().chain(&numbers).all(|n| n.is_finite()) {
        return Err("invalid coordinate".to_owned());
    }
    if coord.vec.len() != DIMENSIONS {
        return Err("incompatible coordinate".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fsm::catalog::{RegisterRequest, register},
        state::{Store, schema::Coordinates, table::TableDef},
    };

    fn at(node: &str, height: f64) -> CoordinatesRequest {
        let coord = Coord {
            vec: vec![0.0; DIMENSIONS],
            height,
            ..Coord::default()
        };
        let update = Coordinate {
            node: node.into(),
            coord,
            ..Coordinate::default()
        };
        CoordinatesRequest {
            updates: vec![update],
        }
    }

    #[test]
    fn the_last_word_counts_and_unknown_nodes_are_passed_over() {
        let mut store = Store::default();
        let mut txn = store.begin();
        let node = RegisterRequest {
            node: "n".into(),
            address: "a".into(),
            ..RegisterRequest::default()
        };
        register(&mut txn, Index(1), &node).unwrap();
        assert_eq!(update(&mut txn, Index(2), &at("other", 1.0)), Ok(false));
        assert_eq!(update(&mut txn, Index(3), &at("n", 1.0)), Ok(true));
        assert_eq!(update(&mut txn, Index(4), &at("N", 2.0)), Ok(true));
        assert_eq!(update(&mut txn, Index(5), &at("N", 2.0)), Ok(true));
        txn.commit();
        assert_eq!(store.tables().coordinates.len(), 1);
        let index = store.tables().max_index(&[Coordinates::NAME]);
        assert_eq!(index, Index(4), "the same again is no change");
    }

    #[test]
    fn coordinates_of_another_space_are_refused() {
        let mut store = Store::default();
        let mut txn = store.begin();
        let mut flat = at("n", 1.0);
        flat.updates[0].coord.vec.pop();
        assert_eq!(
            update(&mut txn, Index(1), &flat),
            Err("incompatible coordinate".into())
        );
        let nowhere = at("n", f64::NAN);
        assert_eq!(
            update(&mut txn, Index(1), &nowhere),
            Err("invalid coordinate".into())
        );
    }
}
