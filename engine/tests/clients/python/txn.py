"""Transactions: all or nothing."""

import base64

import consul
from support import raises


def text(value):
    return base64.b64encode(value.encode()).decode()


def op(verb, key, **fields):
    return {"KV": {"Verb": verb, "Key": f"py/txn/{key}", **fields}}


def part(cluster):
    for client in cluster.clients:
        transactions(client)
    assert cluster.clients[0].txn.put([op("set", "survives", Value=text("1"), Flags=7)])
    yield
    for client in cluster.alive():
        found = client.txn.put([op("get", "survives")])["Results"][0]["KV"]
        assert found["Value"] == text("1") and found["Flags"] == 7
        transactions(client)
    yield
    for client in cluster.clients:
        transactions(client)


def transactions(client):
    client.kv.delete("py/txn/t/", recurse=True)
    result = client.txn.put([
        op("check-not-exists", "t/a"),
        op("set", "t/a", Value=text("1")),
        op("set", "t/b", Value=text("2"), Flags=3),
        op("get", "t/a"),
    ])
    assert result["Errors"] is None
    rows = [row["KV"] for row in result["Results"]]
    assert [row["Value"] for row in rows] == [None, None, text("1")]
    assert len({row["ModifyIndex"] for row in rows}) == 1
    a = client.kv.get("py/txn/t/a")[1]
    assert a["Value"] == b"1" and a["ModifyIndex"] == rows[0]["ModifyIndex"]
    # Reads alone.
    result = client.txn.put([op("get-tree", "t/"), op("check-index", "t/a", Index=a["ModifyIndex"])])
    assert [row["KV"]["Key"] for row in result["Results"]][:2] == ["py/txn/t/a", "py/txn/t/b"]
    # One operation fails: nothing happens, and each that failed is named.
    raises(
        consul.base.ConsulException,
        "409",
        client.txn.put,
        [op("delete", "t/b"), op("cas", "t/a", Index=1, Value=text("x")), op("get", "missing")],
    )
    raises(
        consul.base.ConsulException,
        r'failed to set key \"py/txn/t/a\", index is stale',
        client.txn.put,
        [op("delete", "t/b"), op("cas", "t/a", Index=1, Value=text("x"))],
    )
    assert client.kv.get("py/txn/t/b")[1]["Flags"] == 3
    raises(consul.base.ConsulException, "unknown KV operation", client.txn.put, [op("burn", "t/a")])
    raises(
        consul.base.ConsulException,
        "413 Transaction contains too many operations (129 > 128)",
        client.txn.put,
        [op("get", "t/a")] * 129,
    )
    result = client.txn.put([
        op("cas", "t/a", Index=a["ModifyIndex"], Value=text("3")),
        op("delete-tree", "t/b"),
    ])
    assert result["Errors"] is None
    assert client.kv.get("py/txn/t/", keys=True)[1] == ["py/txn/t/a"]
