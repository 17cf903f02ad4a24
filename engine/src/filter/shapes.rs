//! What can be selected in the rows of each endpoint?
//!
//! The fields are those of Consul 1.21's filters. A few that its JSON has cannot be selected there
//! either (indexes, `Proxy.Config`, `Definition`), so that a filter that works here works there.

use super::shape::{
    Field, Kind,
    Kind::{Bool, Number, Text, Texts},
    Shape,
};

const fn field(name: &'static str, kind: Kind) -> Field {
    Field::new(name, kind)
}

/// Strings under any keys: metadata, tags of members, addresses of nodes.
const TEXT_BY_KEY: Kind = Kind::Map(&Text);

/// Addresses of a service by what they are for.
const ADDRESS_BY_KEY: Kind = Kind::Map(&Kind::Struct(&Shape {
    fields: &[field("Address", Text), field("Port", Number)],
}));

const WEIGHTS: Kind = Kind::Struct(&Shape {
    fields: &[field("Passing", Number), field("Warning", Number)],
});

const MESH_GATEWAY: Kind = Kind::Struct(&Shape {
    fields: &[field("Mode", Text)],
});

const CONNECT: Kind = Kind::Struct(&Shape {
    fields: &[field("Native", Bool)],
});

const EXPOSED_PATHS: Kind = Kind::List(&Shape {
    fields: &[
        field("ListenerPort", Number),
        field("LocalPathPort", Number),
        field("ParsedFromCheck", Bool),
        field("Path", Text),
        field("Protocol", Text),
    ],
});

const UPSTREAMS: Kind = Kind::List(&Shape {
    fields: &[
        field("Datacenter", Text),
        field("DestinationName", Text),
        field("DestinationNamespace", Text),
        field("DestinationPeer", Text),
        field("DestinationType", Text),
        field("LocalBindAddress", Text),
        field("LocalBindPort", Number),
        field("LocalBindSocketMode", Text),
        field("LocalBindSocketPath", Text),
        field("MeshGateway", MESH_GATEWAY),
    ],
});

const PROXY: Kind = Kind::Struct(&Shape {
    fields: &[
        field("DestinationServiceID", Text),
        field("DestinationServiceName", Text),
        field(
            "Expose",
            Kind::Struct(&Shape {
                fields: &[field("Checks", Bool), field("Paths", EXPOSED_PATHS)],
            }),
        ),
        field("LocalServiceAddress", Text),
        field("LocalServicePort", Number),
        field("LocalServiceSocketPath", Text),
        field("MeshGateway", MESH_GATEWAY),
        field("Mode", Text),
        field(
            "TransparentProxy",
            Kind::Struct(&Shape {
                fields: &[
                    field("DialedDirectly", Bool),
                    field("OutboundListenerPort", Number),
                ],
            }),
        ),
        field("Upstreams", UPSTREAMS),
    ],
});

/// `/v1/catalog/nodes`; also `Node` in [`HEALTH_SERVICE`].
pub const NODE: Shape = Shape {
    fields: &[
        field("Address", Text),
        field("Datacenter", Text),
        field("ID", Text),
        field("Meta", TEXT_BY_KEY),
        field("Node", Text),
        field("PeerName", Text),
        field("TaggedAddresses", TEXT_BY_KEY),
    ],
};

/// `/v1/catalog/service/<name>` and `/v1/catalog/connect/<name>`; of `/v1/catalog/services`, the
/// rows that its names are taken from.
pub const CATALOG_SERVICE: Shape = Shape {
    fields: &[
        field("Address", Text),
        field("Datacenter", Text),
        field("ID", Text),
        field("Node", Text),
        field("NodeMeta", TEXT_BY_KEY),
        field("PeerName", Text),
        field("ServiceAddress", Text),
        field("ServiceConnect", CONNECT),
        field("ServiceEnableTagOverride", Bool),
        field("ServiceID", Text),
        field("ServiceKind", Text),
        field("ServiceMeta", TEXT_BY_KEY),
        field("ServiceName", Text),
        field("ServicePort", Number),
        field("ServiceProxy", PROXY),
        field("ServiceSocketPath", Text),
        field("ServiceTaggedAddresses", ADDRESS_BY_KEY),
        field("ServiceTags", Texts),
        field("ServiceWeights", WEIGHTS),
        field("TaggedAddresses", TEXT_BY_KEY),
    ],
};

/// A service of a node: the values of `Services` in `/v1/catalog/node/<node>`, those of
/// `/v1/catalog/node-services/<node>` and of `/v1/agent/services`, and `Service` in
/// [`HEALTH_SERVICE`].
pub const SERVICE: Shape = Shape {
    fields: &[
        field("Address", Text),
        field("Connect", CONNECT),
        field("Datacenter", Text),
        field("EnableTagOverride", Bool),
        field("ID", Text),
        field("Kind", Text),
        field("Meta", TEXT_BY_KEY),
        field("PeerName", Text),
        field("Port", Number),
        field("Proxy", PROXY),
        field("Service", Text),
        field("SocketPath", Text),
        field("TaggedAddresses", ADDRESS_BY_KEY),
        field("Tags", Texts),
        field("Weights", WEIGHTS),
    ],
};

/// `/v1/health/node/<node>`, `/v1/health/checks/<service>`, `/v1/health/state/<state>`; the values
/// of `/v1/agent/checks`; `Checks` in [`HEALTH_SERVICE`].
pub const CHECK: Shape = Shape {
    fields: &[
        field("CheckID", Text),
        field("ExposedPort", Number),
        field("Interval", Text),
        field("Name", Text),
        field("Node", Text),
        field("Notes", Text),
        field("Output", Text),
        field("PeerName", Text),
        field("ServiceID", Text),
        field("ServiceName", Text),
        field("ServiceTags", Texts),
        field("Status", Text),
        field("Timeout", Text),
        field("Type", Text),
    ],
};

/// `/v1/health/service/<name>`, `/v1/health/connect/<name>`.
pub const HEALTH_SERVICE: Shape = Shape {
    fields: &[
        field("Checks", Kind::List(&CHECK)),
        field("Node", Kind::Struct(&NODE)),
        field("Service", Kind::Struct(&SERVICE)),
    ],
};

/// `/v1/agent/members`. `Status` is serf's number: 1 alive, 2 leaving, 3 left, 4 failed.
pub const MEMBER: Shape = Shape {
    fields: &[
        field("Addr", Text),
        field("DelegateCur", Number),
        field("DelegateMax", Number),
        field("DelegateMin", Number),
        field("Name", Text),
        field("Port", Number),
        field("ProtocolCur", Number),
        field("ProtocolMax", Number),
        field("ProtocolMin", Number),
        field("Status", Number),
        field("Tags", TEXT_BY_KEY),
    ],
};

/// `/v1/config/<kind>`: what all kinds have.
pub const CONFIG_ENTRY: Shape = Shape {
    fields: &[
        field("Kind", Text),
        field("Meta", TEXT_BY_KEY),
        field("Name", Text),
        field("Protocol", Text),
    ],
};
