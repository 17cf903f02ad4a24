"""Blocking queries: a change comes at once, through the death of the leader too."""

import threading
import time

import consul
import requests
from support import eventually, insist

BROKEN = (requests.ConnectionError, requests.Timeout, consul.base.ConsulException)


class Watcher(threading.Thread):
    """Follows one key or prefix as the documentation says to: by index, and again after a break."""

    def __init__(self, cluster, client, key, recurse=False):
        super().__init__(daemon=True)
        self.cluster, self.client, self.key, self.recurse = cluster, client, key, recurse
        self.seen = []
        self.stopped = False
        self.breaks = 0
        self.start()

    def run(self):
        index = None
        while not self.stopped:
            try:
                new, found = self.client.kv.get(
                    self.key, index=index, wait="20s", recurse=self.recurse
                )
            except BROKEN:
                self.breaks += 1
                time.sleep(0.1)
                self.client = self.cluster.alive()[0]
                continue
            new = int(new)
            assert new > 0
            index = None if index and new < index else new
            rows = found if self.recurse else [found]
            self.seen.append({row["Key"]: row["Value"] for row in rows or [] if row})


def part(cluster):
    first, second, third = cluster.clients
    time_out(first)
    first.kv.delete("py/watch/", recurse=True)
    keys = [Watcher(cluster, client, "py/watch/a") for client in cluster.clients]
    trees = [Watcher(cluster, client, "py/watch/", recurse=True) for client in cluster.clients]
    all_see(keys + trees, {})
    assert second.kv.put("py/watch/a", "1")
    all_see(keys + trees, {"py/watch/a": b"1"})
    assert third.kv.put("py/watch/b", "2")
    all_see(trees, {"py/watch/a": b"1", "py/watch/b": b"2"})
    # A change of its neighbour is none of the key.
    assert all(watcher.seen[-1] == {"py/watch/a": b"1"} for watcher in keys)
    yield
    one, other = cluster.alive()
    assert insist(one.kv.put, "py/watch/a", "3")
    all_see(keys, {"py/watch/a": b"3"})
    all_see(trees, {"py/watch/a": b"3", "py/watch/b": b"2"})
    assert other.kv.delete("py/watch/a")
    all_see(keys, {})
    all_see(trees, {"py/watch/b": b"2"})
    yield
    for watcher in keys + trees:
        watcher.stopped = True
    assert first.kv.delete("py/watch/", recurse=True)
    all_see(keys + trees, {})
    time_out(third)


def all_see(watchers, expected):
    for watcher in watchers:
        eventually(
            f"{watcher.key} becomes {expected}, seen {watcher.seen}",
            lambda watcher=watcher: watcher.seen and watcher.seen[-1] == expected,
        )


def time_out(client):
    """Without a change a query ends by itself, with the index that it was asked with."""
    client.kv.put("py/quiet", "x")
    index, before = client.kv.get("py/quiet")
    began = time.monotonic()
    again, after = client.kv.get("py/quiet", index=index, wait="300ms")
    assert time.monotonic() - began >= 0.3
    assert (again, after) == (index, before)
