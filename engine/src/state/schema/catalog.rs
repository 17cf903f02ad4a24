//! Nodes, services, checks and coordinates.

use super::{SOME, SOME_MULTI, UNIQUE, UNIQUE_PREFIX};
use crate::state::{
    index::{Attributes, DeclaredIndex, Field, FunctionalIndex, Write},
    records::{Check, Coordinate, Node, RecordRow, Service},
};

record_table! {
    /// Nodes of the catalog. Consul: `nodes`.
    Nodes: Node = 4 "nodes", by NODES_ID, and [NODES_UUID, NODES_META]
}

/// `nodes.id`: the name.
pub const NODES_ID: DeclaredIndex<RecordRow<Node>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[Field::Lower(|node| &node.node)],
};

/// `nodes.uuid`: the id, if it has one.
pub const NODES_UUID: DeclaredIndex<RecordRow<Node>> = DeclaredIndex {
    name: "uuid",
    attributes: Attributes {
        allow_missing: true,
        ..UNIQUE_PREFIX
    },
    fields: &[Field::UuidText(|node| &node.id)],
};

/// `nodes.meta`: each pair {name, value} of its meta, case-sensitive.
pub const NODES_META: FunctionalIndex<RecordRow<Node>, (String, String)> = FunctionalIndex {
    name: "meta",
    attributes: SOME_MULTI,
    read: |(name, value), key| {
        key.text(name).text(value);
    },
    write: Write::Multi(|node, keys| {
        for (name, value) in &node.meta {
            keys.add(|key| {
                key.text(name).text(value);
            });
        }
    }),
    prefix: None,
};

record_table! {
    /// Services on nodes. Consul: `services`.
    Services: Service = 5 "services", by SERVICES_ID, and [SERVICES_NODE, SERVICES_SERVICE, SERVICES_CONNECT, SERVICES_KIND]
}

/// `services.id`: node and service id.
pub const SERVICES_ID: DeclaredIndex<RecordRow<Service>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[
        Field::Lower(|service| &service.node),
        Field::Lower(|service| &service.id),
    ],
};

/// `services.node`: the node.
pub const SERVICES_NODE: DeclaredIndex<RecordRow<Service>> = DeclaredIndex {
    name: "node",
    attributes: Attributes::NONE,
    fields: &[Field::Lower(|service| &service.node)],
};

/// `services.service`: the name.
pub const SERVICES_SERVICE: DeclaredIndex<RecordRow<Service>> = DeclaredIndex {
    name: "service",
    attributes: SOME,
    fields: &[Field::Lower(|service| &service.service)],
};

/// `services.connect`: the service it speaks for in the mesh, see [`Service::connect_name`].
pub const SERVICES_CONNECT: FunctionalIndex<RecordRow<Service>, str> = FunctionalIndex {
    name: "connect",
    attributes: SOME,
    read: |name, key| {
        key.lower(name);
    },
    write: Write::One(|service, key| {
        let name = service.connect_name();
        !name.is_empty() && !key.lower(&name).as_bytes().is_empty()
    }),
    prefix: None,
};

/// `services.kind`: the kind; ordinary services have the empty one.
pub const SERVICES_KIND: DeclaredIndex<RecordRow<Service>> = DeclaredIndex {
    name: "kind",
    attributes: Attributes::NONE,
    fields: &[Field::LowerOrEmpty(|service| &service.kind)],
};

record_table! {
    /// Checks of nodes and services. Consul: `checks`.
    Checks: Check = 6 "checks", by CHECKS_ID, and [CHECKS_STATUS, CHECKS_SERVICE, CHECKS_NODE, CHECKS_NODE_SERVICE]
}

/// `checks.id`: node and check id.
pub const CHECKS_ID: DeclaredIndex<RecordRow<Check>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[
        Field::Lower(|check| &check.node),
        Field::Lower(|check| &check.check_id),
    ],
};

/// `checks.status`: the status.
pub const CHECKS_STATUS: DeclaredIndex<RecordRow<Check>> = DeclaredIndex {
    name: "status",
    attributes: Attributes::NONE,
    fields: &[Field::Lower(|check| &check.status)],
};

/// `checks.service`: name of the service it is of, if it is of one.
pub const CHECKS_SERVICE: DeclaredIndex<RecordRow<Check>> = DeclaredIndex {
    name: "service",
    attributes: SOME,
    fields: &[Field::Lower(|check| &check.service_name)],
};

/// `checks.node`: the node.
pub const CHECKS_NODE: DeclaredIndex<RecordRow<Check>> = DeclaredIndex {
    name: "node",
    attributes: SOME,
    fields: &[Field::Lower(|check| &check.node)],
};

/// `checks.node_service`: node and service id; the empty id for checks of the node itself.
pub const CHECKS_NODE_SERVICE: DeclaredIndex<RecordRow<Check>> = DeclaredIndex {
    name: "node_service",
    attributes: SOME,
    fields: &[
        Field::Lower(|check| &check.node),
        Field::LowerOrEmpty(|check| &check.service_id),
    ],
};

record_table! {
    /// Network coordinates of nodes. Consul: `coordinates`.
    Coordinates: Coordinate = 7 "coordinates", by COORDINATES_ID, and [COORDINATES_NODE]
}

/// `coordinates.id`: node and network segment.
pub const COORDINATES_ID: DeclaredIndex<RecordRow<Coordinate>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE,
    fields: &[
        Field::Lower(|coordinate| &coordinate.node),
        Field::LowerOrEmpty(|coordinate| &coordinate.segment),
    ],
};

/// `coordinates.node`: the node.
pub const COORDINATES_NODE: DeclaredIndex<RecordRow<Coordinate>> = DeclaredIndex {
    name: "node",
    attributes: Attributes::NONE,
    fields: &[Field::Lower(|coordinate| &coordinate.node)],
};
