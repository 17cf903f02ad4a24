"""Keys and values."""

import consul
from support import insist, raises

VALUE_BYTES_MAX = 512 * 1024


def part(cluster):
    first, second, third = cluster.clients
    basics(first)
    check_and_set(first)
    listings(second)
    refusals(third)
    assert first.kv.put("py/survives", "before")
    _, before = second.kv.get("py/survives")
    yield
    # The leader is dead, and perhaps nobody has noticed.
    one, other = cluster.alive()
    assert insist(one.kv.put, "py/survives", "after")
    _, after = other.kv.get("py/survives")
    assert after["Value"] == b"after"
    assert after["CreateIndex"] == before["CreateIndex"]
    assert after["ModifyIndex"] > before["ModifyIndex"]
    basics(other)
    check_and_set(one)
    listings(other)
    yield
    for client in cluster.clients:
        for consistency in ("default", "consistent", "stale"):
            _, found = client.kv.get("py/survives", consistency=consistency)
            assert found == after, (found, after)
        basics(client)


def basics(client):
    client.kv.delete("py/basics/", recurse=True)
    index, found = client.kv.get("py/basics/a")
    assert int(index) >= 1 and found is None
    assert client.kv.put("py/basics/a", "text", flags=2**64 - 1) is True
    index, found = client.kv.get("py/basics/a")
    assert found["Key"] == "py/basics/a" and found["Value"] == b"text"
    assert found["Flags"] == 2**64 - 1 and found["LockIndex"] == 0
    assert "Session" not in found
    assert found["CreateIndex"] == found["ModifyIndex"] == int(index)
    # Any bytes, none, and names that a URL has to escape.
    everything = bytes(range(256)) * 16
    assert client.kv.put("py/basics/bytes", everything)
    assert client.kv.get("py/basics/bytes")[1]["Value"] == everything
    for empty in (None, "", b""):
        assert client.kv.put("py/basics/empty", empty)
        assert client.kv.get("py/basics/empty")[1]["Value"] is None
    for name in ("ü ñ", "a%2Fb", "q?x=1&y#z", "+", "trailing/", '"quoted"'):
        key = f"py/basics/{name}"
        assert client.kv.put(key, name)
        assert client.kv.get(key)[1]["Key"] == key
    # The same again changes no index, a new value does.
    same = client.kv.get("py/basics/a")[1]
    assert client.kv.put("py/basics/a", "text", flags=2**64 - 1)
    assert client.kv.get("py/basics/a")[1] == same
    assert client.kv.put("py/basics/a", "new")
    changed = client.kv.get("py/basics/a")[1]
    assert changed["ModifyIndex"] > same["ModifyIndex"]
    assert changed["CreateIndex"] == same["CreateIndex"] and changed["Flags"] == 0
    # As it is: the client has no word for it but passes it on.
    raw = client.http.get(lambda answer: answer, "/v1/kv/py/basics/bytes", [("raw", "")], raw=True)
    assert raw.code == 200 and raw.body == everything
    assert raw.headers["Content-Type"].startswith("text/plain")
    assert client.kv.delete("py/basics/a") is True
    assert client.kv.delete("py/basics/a") is True
    assert client.kv.get("py/basics/a")[1] is None


def check_and_set(client):
    client.kv.delete("py/cas")
    assert client.kv.put("py/cas", "1", cas=17) is False
    assert client.kv.put("py/cas", "1", cas=0) is True
    assert client.kv.put("py/cas", "2", cas=0) is False
    old = client.kv.get("py/cas")[1]["ModifyIndex"]
    assert client.kv.put("py/cas", "3", cas=old) is True
    assert client.kv.put("py/cas", "4", cas=old) is False
    new = client.kv.get("py/cas")[1]
    assert new["Value"] == b"3"
    assert client.kv.delete("py/cas", cas=old) is False
    assert client.kv.delete("py/cas", cas=0) is False
    assert client.kv.delete("py/cas", cas=new["ModifyIndex"]) is True
    # What is not there cannot be stale.
    assert client.kv.delete("py/cas", cas=new["ModifyIndex"]) is True


def listings(client):
    client.kv.delete("py/list", recurse=True)
    assert client.kv.get("py/list/", recurse=True)[1] is None
    assert client.kv.get("py/list/", keys=True)[1] is None
    names = ["py/list/a", "py/list/b/1", "py/list/b/2", "py/list/c", "py/listed"]
    for name in reversed(names):
        assert client.kv.put(name, name)
    index, rows = client.kv.get("py/list", recurse=True)
    assert [row["Key"] for row in rows] == names
    assert [row["Value"].decode() for row in rows] == names
    assert int(index) >= max(row["ModifyIndex"] for row in rows)
    assert client.kv.get("py/list", keys=True)[1] == names
    folders = client.kv.get("py/list/", keys=True, separator="/")[1]
    assert folders == ["py/list/a", "py/list/b/", "py/list/c"]
    for consistency in ("default", "consistent"):
        assert client.kv.get("py/list/b", recurse=True, consistency=consistency)[1]
    # A prefix is a prefix of bytes, not a folder.
    assert client.kv.delete("py/list/b", recurse=True) is True
    assert client.kv.get("py/list", keys=True)[1] == ["py/list/a", "py/list/c", "py/listed"]
    assert client.kv.delete("py/list", recurse=True) is True
    assert client.kv.get("py/list", keys=True)[1] is None


def refusals(client):
    put, get = client.kv.put, client.kv.get
    raises(consul.base.ConsulException, "Missing key name", get, "")
    raises(
        consul.base.ConsulException,
        "400 Conflicting flags: acquire=x&cas=1",
        put, "py/bad", "x", cas=1, acquire="x",
    )
    raises(
        consul.base.ConsulException,
        '500 strconv.ParseUint: parsing "abc": invalid syntax',
        put, "py/bad", "x", cas="abc",
    )
    raises(consul.base.ConsulException, "Invalid wait time", get, "py/bad", index=1, wait="x")
    raises(consul.base.ConsulException, "No path to datacenter", get, "py/bad", dc="nowhere")
    assert put("py/big", b"x" * VALUE_BYTES_MAX)
    raises(
        consul.base.ConsulException,
        "413 Request body(524289 bytes) too large, max size: 524288 bytes",
        put, "py/bad", b"x" * (VALUE_BYTES_MAX + 1),
    )
    assert len(get("py/big")[1]["Value"]) == VALUE_BYTES_MAX
    assert client.kv.delete("py/big")
    assert get("py/bad")[1] is None
