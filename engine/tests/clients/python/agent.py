"""What an agent is asked and told about itself and its services."""

import consul
from support import eventually, raises


def part(cluster):
    first, second, _ = cluster.clients
    about(first)
    services(first, second)
    # It stays registered, whatever happens to its agent.
    assert first.agent.service.register("py-agent-kept", port=81, tags=["kept"])
    yield
    one, other = cluster.alive()
    services(one, other)
    yield
    assert "py-agent-kept" in first.agent.services()
    eventually("it is in the catalog", lambda: second.catalog.service("py-agent-kept")[1])
    assert first.agent.service.deregister("py-agent-kept")
    services(second, first)


def about(client):
    config = client.agent.self()["Config"]
    assert config["Datacenter"] == "dc1" and config["Server"] is True
    members = client.agent.members()
    assert len(members) == 3 and config["NodeName"] in [row["Name"] for row in members]
    assert all(row["Tags"]["role"] == "consul" for row in members)


def services(client, other):
    name = "py-agent"
    assert client.agent.service.register(
        name, service_id="py-agent-1", port=80, tags=["a", "b"], meta={"k": "v"},
        check=consul.Check.ttl("60s"),
    )
    listed = client.agent.services()["py-agent-1"]
    assert (listed["Service"], listed["Port"], listed["Tags"]) == (name, 80, ["a", "b"])
    assert list(client.agent.services(filter_expr='ID == "py-agent-1"')) == ["py-agent-1"]
    assert client.agent.checks()["service:py-agent-1"]["Status"] == "critical"
    eventually("the catalog has it", lambda: other.catalog.service(name)[1])
    for tell, status in (
        (client.agent.check.ttl_pass, "passing"),
        (client.agent.check.ttl_warn, "warning"),
        (client.agent.check.ttl_fail, "critical"),
        (client.agent.check.ttl_pass, "passing"),
    ):
        assert tell("service:py-agent-1", notes=f"now {status}")
        found = client.agent.checks()["service:py-agent-1"]
        assert (found["Status"], found["Output"]) == (status, f"now {status}")
    eventually("it is healthy", lambda: other.health.service(name, passing=True)[1])
    # A 404 with Consul's text, of which this client makes no exception.
    assert client.agent.check.ttl_pass("py-agent-none") is False
    # Python says True where Go reads a boolean.
    assert client.agent.service.maintenance("py-agent-1", True, reason="a pause")
    eventually("not while maintained", lambda: not other.health.service(name, passing=True)[1])
    assert client.agent.service.maintenance("py-agent-1", False)
    eventually("healthy again", lambda: other.health.service(name, passing=True)[1])
    assert client.agent.check.register("py-alone", check=consul.Check.ttl("60s"), check_id="py-alone")
    assert "py-alone" in client.agent.checks()
    assert client.agent.check.deregister("py-alone")
    assert client.agent.service.deregister("py-agent-1")
    assert "py-agent-1" not in client.agent.services()
    eventually("it leaves the catalog", lambda: not other.catalog.service(name)[1])
