// Sessions, and locks on them.

"use strict";

const assert = require("assert");
const { eventually, insist, refused } = require("./support");

async function* session(cluster) {
  const [first, second, third] = cluster.clients;
  const kept = await first.session.create({ name: "js-kept", ttl: "60s", behavior: "delete" });
  await everything(first);
  yield;
  for (const client of cluster.alive()) {
    const found = await client.session.info(kept.ID);
    assert.deepStrictEqual([found.ID, found.Name], [kept.ID, "js-kept"]);
    assert.strictEqual((await client.session.renew(kept.ID))[0].ID, kept.ID);
  }
  await everything(cluster.alive()[1]);
  yield;
  for (const client of cluster.clients) {
    assert.strictEqual((await client.session.info(kept.ID)).ID, kept.ID);
  }
  await second.session.destroy(kept.ID);
  await everything(third);
}

async function everything({ agent, session: sessions }) {
  const plain = (await sessions.create()).ID;
  const defaults = await sessions.info(plain);
  assert.deepStrictEqual(
    [defaults.Behavior, defaults.LockDelay, defaults.NodeChecks],
    ["release", 15e9, ["serfHealth"]],
  );
  const wanted = { name: "js", ttl: "10s", lockdelay: "3s", behavior: "delete" };
  const named = (await sessions.create(wanted)).ID;
  const found = await sessions.info(named);
  assert.deepStrictEqual(
    [found.Name, found.TTL, found.LockDelay, found.Behavior],
    ["js", "10s", 3e9, "delete"],
  );
  assert.strictEqual(found.Node, (await agent.self()).Config.NodeName);
  for (const listed of [await sessions.list(), await sessions.node(found.Node)]) {
    const ids = listed.map((row) => row.ID);
    assert(ids.includes(plain) && ids.includes(named));
  }
  assert.strictEqual((await sessions.renew(named))[0].ID, named);
  for (const known of [plain, named]) {
    await sessions.destroy(known);
    // It is gone already; that is what was wanted.
    await sessions.destroy(known);
    assert.strictEqual(await sessions.info(known), undefined);
    await refused(404, `Session id '${known}' not found`, sessions.renew(known));
  }
  await refused(500, "Invalid Session TTL", sessions.create({ ttl: "86401s" }));
  await refused(500, "Missing node registration", sessions.create({ node: "js-nobody" }));
}

async function* lock(cluster) {
  const [first, second] = cluster.clients;
  await locking(first, second);
  const holder = (await first.session.create({ lockdelay: "0s", ttl: "60s" })).ID;
  assert(await first.kv.set({ key: "js/held", value: "mine", acquire: holder }));
  const wanted = { lockdelay: "0s", ttl: "60s", behavior: "delete" };
  const mortal = (await first.session.create(wanted)).ID;
  assert(await first.kv.set({ key: "js/mortal", value: "x", acquire: mortal }));
  yield;
  const [one, other] = cluster.alive();
  assert.strictEqual((await one.kv.get("js/held")).Session, holder);
  const create = () => other.session.create({ lockdelay: "0s", ttl: "60s" });
  const rival = (await insist(create)).ID;
  assert(!(await other.kv.set({ key: "js/held", value: "theirs", acquire: rival })));
  await one.session.destroy(holder);
  const free = await other.kv.get("js/held");
  assert.deepStrictEqual([free.Session, free.Value], [undefined, "mine"]);
  assert(await other.kv.set({ key: "js/held", value: "theirs", acquire: rival }));
  assert.strictEqual((await one.kv.get("js/held")).LockIndex, 2);
  await one.session.destroy(mortal);
  assert.strictEqual(await other.kv.get("js/mortal"), undefined);
  await locking(one, other);
  yield;
  for (const client of cluster.clients) {
    assert.strictEqual((await client.kv.get("js/held")).Session, rival);
  }
  await first.session.destroy(rival);
  await first.kv.del("js/held");
  await locking(first, second);
}

async function locking(one, other) {
  const key = "js/lock";
  await one.kv.del(key);
  const a = (await one.session.create({ lockdelay: "0s" })).ID;
  const b = (await other.session.create({ lockdelay: "0s" })).ID;
  assert(await one.kv.set({ key, value: "a", acquire: a }));
  assert(!(await other.kv.set({ key, value: "b", acquire: b })));
  const held = await other.kv.get(key);
  assert.deepStrictEqual([held.Session, held.LockIndex, held.Value], [a, 1, "a"]);
  // Who holds it may take it again, with another value.
  assert(await one.kv.set({ key, value: "a2", acquire: a }));
  assert.strictEqual((await one.kv.get(key)).LockIndex, 1);
  assert(!(await other.kv.set({ key, value: "b", release: b })));
  assert(await one.kv.set({ key, value: "bye", release: a }));
  const free = await other.kv.get(key);
  assert.deepStrictEqual([free.Session, free.LockIndex, free.Value], [undefined, 1, "bye"]);
  assert(await other.kv.set({ key, value: "b", acquire: b }));
  assert(await other.kv.set({ key, value: "b", release: b }));
  // With a delay nobody takes it at once after its holder was destroyed.
  const slow = (await one.session.create({ lockdelay: "1s" })).ID;
  assert(await one.kv.set({ key, value: "slow", acquire: slow }));
  await one.session.destroy(slow);
  assert(!(await other.kv.set({ key, value: "b", acquire: b })));
  const again = () => other.kv.set({ key, value: "b", acquire: b });
  await eventually(() => "the delay passes", again);
  const nobody = "b1f5ba5b-8bf1-4c1a-9c4b-6b6dba9d5f4e";
  await refused(500, "invalid session", one.kv.set({ key, value: "x", acquire: nobody }));
  for (const known of [a, b]) await one.session.destroy(known);
  await one.kv.del(key);
}

module.exports = { lock, session };
