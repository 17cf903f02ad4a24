"""Sessions, and locks on them. py-consul spells JSON fields in lower case; Go does not mind."""

import consul
from support import eventually, insist, raises


def session(cluster):
    first, second, third = cluster.clients
    kept = first.session.create(name="py-kept", ttl=60, lock_delay=0, behavior="delete")
    everything(first)
    yield
    for client in cluster.alive():
        _, found = client.session.info(kept)
        assert found["ID"] == kept and found["Name"] == "py-kept"
        assert client.session.renew(kept)["ID"] == kept
    everything(cluster.alive()[1])
    yield
    for client in cluster.clients:
        assert client.session.info(kept)[1]["ID"] == kept
    assert second.session.destroy(kept) is True
    everything(third)


def everything(client):
    plain = client.session.create()
    _, found = client.session.info(plain)
    assert found["ID"] == plain and found["Behavior"] == "release"
    assert found["LockDelay"] == 15_000_000_000 and found["NodeChecks"] == ["serfHealth"]
    named = client.session.create(name="py", ttl=10, lock_delay=3, behavior="delete")
    index, found = client.session.info(named)
    assert int(index) >= found["CreateIndex"] > 0
    assert (found["Name"], found["TTL"], found["Behavior"]) == ("py", "10s", "delete")
    assert found["LockDelay"] == 3_000_000_000
    node = found["Node"]
    assert node == client.agent.self()["Config"]["NodeName"]
    for listed in (client.session.list()[1], client.session.node(node)[1]):
        assert {plain, named} <= {row["ID"] for row in listed}
    assert client.session.renew(named)["ID"] == named
    for known in (plain, named):
        assert client.session.destroy(known) is True
        # It is gone already; that is what was wanted.
        assert client.session.destroy(known) is True
        assert client.session.info(known)[1] is None
        raises(consul.base.ConsulException, f"Session id '{known}' not found",
               client.session.renew, known)
    raises(consul.base.ConsulException, "Missing node registration",
           client.session.create, node="py-nobody")
    raises(consul.base.ConsulException, "Missing check 'py-none' registration",
           client.session.create, checks=["py-none"])


def lock(cluster):
    first, second, _ = cluster.clients
    locking(first, second)
    holder = first.session.create(lock_delay=0, ttl=60)
    assert first.kv.put("py/held", "mine", acquire=holder)
    mortal = first.session.create(lock_delay=0, ttl=60, behavior="delete")
    assert first.kv.put("py/mortal", "x", acquire=mortal)
    yield
    one, other = cluster.alive()
    assert one.kv.get("py/held")[1]["Session"] == holder
    rival = insist(other.session.create, lock_delay=0, ttl=60)
    assert other.kv.put("py/held", "theirs", acquire=rival) is False
    assert one.session.destroy(holder)
    free = other.kv.get("py/held")[1]
    assert "Session" not in free and free["Value"] == b"mine"
    assert other.kv.put("py/held", "theirs", acquire=rival) is True
    assert other.kv.get("py/held")[1]["LockIndex"] == 2
    assert one.session.destroy(mortal)
    assert other.kv.get("py/mortal")[1] is None
    locking(one, other)
    yield
    for client in cluster.clients:
        assert client.kv.get("py/held")[1]["Session"] == rival
    assert first.session.destroy(rival)
    locking(first, second)


def locking(one, other):
    one.kv.delete("py/lock")
    a, b = one.session.create(lock_delay=0), other.session.create(lock_delay=0)
    assert one.kv.put("py/lock", "a", acquire=a) is True
    assert other.kv.put("py/lock", "b", acquire=b) is False
    held = other.kv.get("py/lock")[1]
    assert (held["Session"], held["LockIndex"], held["Value"]) == (a, 1, b"a")
    # Who holds it may take it again, with another value.
    assert one.kv.put("py/lock", "a2", acquire=a) is True
    assert one.kv.get("py/lock")[1]["LockIndex"] == 1
    assert other.kv.put("py/lock", "b", release=b) is False
    assert one.kv.put("py/lock", "bye", release=a) is True
    free = other.kv.get("py/lock")[1]
    assert "Session" not in free and free["LockIndex"] == 1 and free["Value"] == b"bye"
    assert other.kv.put("py/lock", "b", acquire=b) is True
    # With a delay nobody takes it at once after its holder was destroyed; whoever let go could.
    slow = one.session.create(lock_delay=1)
    assert other.kv.put("py/lock", "b", release=b) is True
    assert one.kv.put("py/lock", "slow", acquire=slow) is True
    assert one.session.destroy(slow)
    assert other.kv.put("py/lock", "b", acquire=b) is False
    eventually("the delay passes", lambda: other.kv.put("py/lock", "b", acquire=b))
    raises(consul.base.ConsulException, "invalid session",
           one.kv.put, "py/lock", "x", acquire="b1f5ba5b-8bf1-4c1a-9c4b-6b6dba9d5f4e")
    for known in (a, b):
        assert one.session.destroy(known)
    one.kv.delete("py/lock")
