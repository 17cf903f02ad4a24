// What is registered in the catalog, and how healthy it is.

"use strict";

const assert = require("assert");
const { insist, refused } = require("./support");

const entity = (Status) => ({
  node: "js-node",
  address: "127.0.0.9",
  service: {
    service: "js-web",
    id: "js-web-1",
    tags: ["v1", "primary"],
    port: 8000,
    address: "127.0.0.9",
    meta: { version: "4" },
  },
  check: { node: "js-node", checkid: "js-check", name: "check", status: Status, serviceid: "js-web-1" },
});

const register = (client, status) => insist(() => client.catalog.register(entity(status)));

async function* catalog(cluster) {
  const [first, second] = cluster.clients;
  await rows(first, second);
  await register(first, "passing");
  yield;
  for (const client of cluster.alive()) {
    const found = await client.catalog.service.nodes("js-web");
    assert.deepStrictEqual(found.map((row) => row.Node), ["js-node"]);
  }
  await rows(...cluster.alive());
  await register(cluster.alive()[0], "passing");
  yield;
  for (const client of cluster.clients) assert((await client.catalog.service.list())["js-web"]);
  await rows(first, second);
}

async function rows(one, { catalog: seen }) {
  assert.deepStrictEqual(await one.catalog.datacenters(), ["dc1"]);
  await register(one, "passing");
  const nodes = await seen.node.list({ filter: 'Node == "js-node"' });
  assert.deepStrictEqual(nodes.map((row) => row.Address), ["127.0.0.9"]);
  await refused(500, 'Selector "Nodex" is not valid', seen.node.list({ filter: "Nodex == a" }));
  const services = await seen.service.list();
  assert.deepStrictEqual(services["js-web"].sort(), ["primary", "v1"]);
  assert(services.consul);
  const found = await seen.service.nodes({ service: "js-web", tag: "v1" });
  assert.deepStrictEqual(
    found.map((row) => [row.ServicePort, row.ServiceMeta.version]),
    [[8000, "4"]],
  );
  assert.deepStrictEqual(await seen.service.nodes({ service: "js-web", tag: "v2" }), []);
  const ofNode = await seen.node.services("js-node");
  assert.strictEqual(ofNode.Services["js-web-1"].Port, 8000);
  await one.catalog.deregister({ node: "js-node", serviceid: "js-web-1" });
  assert.deepStrictEqual(await seen.service.nodes("js-web"), []);
  await one.catalog.deregister("js-node");
  assert.deepStrictEqual(await seen.node.list({ filter: 'Node == "js-node"' }), []);
}

async function* health(cluster) {
  const [first, second] = cluster.clients;
  await states(first, second);
  yield;
  await states(...cluster.alive());
  yield;
  await states(second, first);
}

async function states(one, { health: seen }) {
  await register(one, "critical");
  assert.deepStrictEqual(await seen.service({ service: "js-web", passing: true }), []);
  const all = await seen.service("js-web");
  assert.deepStrictEqual(
    all.map((row) => [row.Service.ID, row.Checks.map((check) => check.Status)]),
    [["js-web-1", ["critical"]]],
  );
  const ids = async (list) => (await list).map((row) => row.CheckID);
  assert((await ids(seen.state("critical"))).includes("js-check"));
  await register(one, "passing");
  const passing = await seen.service({ service: "js-web", passing: true });
  assert.strictEqual(passing[0].Node.Node, "js-node");
  assert.deepStrictEqual(await ids(seen.checks("js-web")), ["js-check"]);
  assert.deepStrictEqual(await ids(seen.node("js-node")), ["js-check"]);
  assert((await ids(seen.state("any"))).includes("js-check"));
  const filter = 'Service.Meta.version == "5"';
  assert.deepStrictEqual(await seen.service({ service: "js-web", filter }), []);
  await one.catalog.deregister("js-node");
  assert.deepStrictEqual(await seen.node("js-node"), []);
  // `catalog` looks for it when it goes on.
  await register(one, "passing");
}

module.exports = { catalog, health };
