"""What is registered in the catalog, and how healthy it is."""

import consul
from support import raises

WEB = {
    "Service": "py-web",
    "ID": "py-web-1",
    "Tags": ["v1", "primary"],
    "Port": 8000,
    "Address": "127.0.0.9",
    "Meta": {"version": "4"},
}
CHECK = {
    "Node": "py-node",
    "CheckID": "py-check",
    "Name": "py's check",
    "Status": "passing",
    "ServiceID": "py-web-1",
}


def register(client, status="passing"):
    return client.catalog.register(
        "py-node", "127.0.0.9", service=WEB, check={**CHECK, "Status": status},
        tagged_addresses={"lan": "127.0.0.9"},
    )


def catalog(cluster):
    first, second, _ = cluster.clients
    rows(first, second)
    assert register(first)
    yield
    for client in cluster.alive():
        assert [row["Node"] for row in client.catalog.service("py-web")[1]] == ["py-node"]
    rows(*cluster.alive())
    assert register(cluster.alive()[0])
    yield
    for client in cluster.clients:
        assert "py-web" in client.catalog.services()[1]
    rows(first, second)


def rows(one, other):
    assert one.catalog.datacenters() == ["dc1"]
    assert register(one) is True
    index, nodes = other.catalog.nodes()
    node = next(row for row in nodes if row["Node"] == "py-node")
    assert node["Address"] == "127.0.0.9" and node["TaggedAddresses"]["lan"] == "127.0.0.9"
    assert int(index) >= node["ModifyIndex"]
    filtered = other.catalog.nodes(filter_expr='Node == "py-node"')[1]
    assert [row["Node"] for row in filtered] == ["py-node"]
    raises(consul.base.ConsulException, 'Selector "Nodex" is not valid',
           other.catalog.nodes, filter_expr='Nodex == "a"')
    services = other.catalog.services()[1]
    assert sorted(services["py-web"]) == ["primary", "v1"] and "consul" in services
    found = other.catalog.service("py-web", tag="v1")[1]
    assert len(found) == 1 and found[0]["ServicePort"] == 8000
    assert found[0]["ServiceMeta"] == {"version": "4"}
    assert other.catalog.service("py-web", tag="v2")[1] == []
    assert other.catalog.service("py-nothing")[1] == []
    of_node = other.catalog.node("py-node")[1]
    assert of_node["Node"]["Node"] == "py-node"
    assert of_node["Services"]["py-web-1"]["Port"] == 8000
    assert other.catalog.node("py-nobody")[1] is None
    raises(consul.base.ConsulException, "Must provide address",
           one.catalog.register, "py-node-2", "")
    assert one.catalog.deregister("py-node", service_id="py-web-1") is True
    assert other.catalog.service("py-web")[1] == []
    assert one.catalog.deregister("py-node") is True
    assert all(row["Node"] != "py-node" for row in other.catalog.nodes()[1])


def health(cluster):
    first, second, _ = cluster.clients
    states(first, second)
    yield
    states(*cluster.alive())
    yield
    states(second, first)


def states(one, other):
    assert register(one, "critical")
    assert other.health.service("py-web", passing=True)[1] == []
    every = other.health.service("py-web")[1]
    assert [row["Service"]["ID"] for row in every] == ["py-web-1"]
    assert [check["Status"] for check in every[0]["Checks"]] == ["critical"]
    index, critical = other.health.state("critical")
    assert "py-check" in [row["CheckID"] for row in critical]
    assert register(one, "passing")
    # A change of a check wakes who waits for its service.
    new, found = other.health.service("py-web", index=index, wait="30s", passing=True)
    assert int(new) > int(index) and found[0]["Node"]["Node"] == "py-node"
    assert [row["CheckID"] for row in other.health.checks("py-web")[1]] == ["py-check"]
    assert [row["CheckID"] for row in other.health.node("py-node")[1]] == ["py-check"]
    passing = other.health.state("passing", filter_expr='CheckID == "py-check"')[1]
    assert [row["Node"] for row in passing] == ["py-node"]
    assert "py-check" in [row["CheckID"] for row in other.health.state("any")[1]]
    narrow = other.health.service("py-web", filter_expr='Service.Meta.version == "5"')[1]
    assert narrow == []
    assert one.catalog.deregister("py-node") is True
    assert other.health.node("py-node")[1] == []
    # `catalog` looks for it when it goes on.
    assert register(one)
