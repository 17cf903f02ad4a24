"""Runs parts of py-consul against three servers; `tests/clients.rs` tells what the words mean.

Each part is a generator. What it does before its first `yield` it does while all servers run;
between the first and the second a leader has just died; after the second all run again.
"""

import sys

import agent
import catalog
import consul
import kv
import sessions
import txn
import watch

PARTS = {
    "kv": kv.part,
    "txn": txn.part,
    "watch": watch.part,
    "session": sessions.session,
    "lock": sessions.lock,
    "catalog": catalog.catalog,
    "health": catalog.health,
    "agent": agent.part,
}


class Cluster:
    """A client for each server. The first two are followers at the start."""

    def __init__(self, addresses):
        self.addresses = addresses
        self.dead = None
        self.clients = [self.connect(address) for address in addresses]

    @staticmethod
    def connect(address):
        host, port = address.rsplit(":", 1)
        return consul.Consul(host=host, port=int(port))

    def alive(self):
        """Clients of the servers that run."""
        pairs = zip(self.addresses, self.clients, strict=True)
        return [client for address, client in pairs if address != self.dead]

    def ask(self, what):
        print(what, flush=True)
        return sys.stdin.readline().strip()


def main():
    cluster = Cluster(sys.argv[1].split(","))
    names = sys.argv[2].split(",")
    parts = {name: PARTS[name](cluster) for name in names}

    def step():
        for name, part in parts.items():
            print(f"  {name}", file=sys.stderr)
            next(part, None)

    step()
    cluster.dead = cluster.ask("kill")
    assert cluster.dead in cluster.addresses
    step()
    assert cluster.ask("start") == "started"
    cluster.dead = None
    step()
    for name in names:
        print(f"done {name}", flush=True)


main()
