// What an agent is asked and told about itself and its services.

"use strict";

const assert = require("assert");
const { eventually } = require("./support");

async function* part(cluster) {
  const [first, second] = cluster.clients;
  const { Config } = await first.agent.self();
  assert.deepStrictEqual([Config.Datacenter, Config.Server], ["dc1", true]);
  const members = await first.agent.members();
  assert.strictEqual(members.length, 3);
  assert(members.some((row) => row.Name === Config.NodeName));
  await services(first, second);
  // It stays registered, whatever happens to its agent.
  await first.agent.service.register({ name: "js-agent-kept", port: 81 });
  yield;
  await services(...cluster.alive());
  yield;
  assert((await first.agent.services())["js-agent-kept"]);
  const listed = async () => (await second.catalog.service.nodes("js-agent-kept")).length;
  await eventually(() => "it is in the catalog", listed);
  await first.agent.service.deregister("js-agent-kept");
  await services(second, first);
}

async function services({ agent }, other) {
  const service = "js-agent";
  await agent.service.register({
    name: service,
    id: "js-agent-1",
    port: 80,
    tags: ["a", "b"],
    meta: { k: "v" },
    check: { ttl: "60s" },
  });
  const found = (await agent.services())["js-agent-1"];
  assert.deepStrictEqual([found.Service, found.Port, found.Tags], [service, 80, ["a", "b"]]);
  assert.strictEqual((await agent.checks())["service:js-agent-1"].Status, "critical");
  for (const [tell, status] of [["pass", "passing"], ["warn", "warning"], ["fail", "critical"], ["pass", "passing"]]) {
    await agent.check[tell]({ id: "service:js-agent-1", note: `now ${status}` });
    const check = (await agent.checks())["service:js-agent-1"];
    assert.deepStrictEqual([check.Status, check.Output], [status, `now ${status}`]);
  }
  const healthy = async () => (await other.health.service({ service, passing: true })).length === 1;
  await eventually(() => "it is healthy", healthy);
  await agent.service.maintenance({ id: "js-agent-1", enable: true, reason: "a pause" });
  await eventually(() => "not while maintained", async () => !(await healthy()));
  await agent.service.maintenance({ id: "js-agent-1", enable: false });
  await eventually(() => "healthy again", healthy);
  await agent.check.register({ name: "js-alone", id: "js-alone", ttl: "60s" });
  assert((await agent.checks())["js-alone"]);
  await agent.check.deregister("js-alone");
  await agent.service.deregister("js-agent-1");
  assert.strictEqual((await agent.services())["js-agent-1"], undefined);
  const gone = async () => !(await other.catalog.service.nodes(service)).length;
  await eventually(() => "it leaves the catalog", gone);
}

module.exports = { part };
