// Keys and values.

"use strict";

const assert = require("assert");
const { insist, refused } = require("./support");

const VALUE_BYTES_MAX = 512 * 1024;

async function* part(cluster) {
  const [first, second, third] = cluster.clients;
  await basics(first);
  await checkAndSet(first);
  await listings(second);
  await refusals(third);
  assert.strictEqual(await first.kv.set("js/survives", "before"), true);
  const before = await second.kv.get("js/survives");
  yield;
  // The leader is dead, and perhaps nobody has noticed.
  const [one, other] = cluster.alive();
  assert.strictEqual(await insist(() => one.kv.set("js/survives", "after")), true);
  const after = await other.kv.get("js/survives");
  assert.strictEqual(after.Value, "after");
  assert.strictEqual(after.CreateIndex, before.CreateIndex);
  assert(after.ModifyIndex > before.ModifyIndex);
  await basics(other);
  await checkAndSet(one);
  await listings(other);
  yield;
  for (const client of cluster.clients) {
    for (const mode of [{}, { consistent: true }, { stale: true }]) {
      assert.deepStrictEqual(await client.kv.get({ key: "js/survives", ...mode }), after);
    }
    await basics(client);
  }
}

async function basics({ kv }) {
  await kv.del({ key: "js/basics/", recurse: true });
  assert.strictEqual(await kv.get("js/basics/a"), undefined);
  assert.strictEqual(await kv.set({ key: "js/basics/a", value: "text", flags: 42 }), true);
  const found = await kv.get("js/basics/a");
  assert.deepStrictEqual(
    [found.Key, found.Value, found.Flags, found.LockIndex, found.Session],
    ["js/basics/a", "text", 42, 0, undefined],
  );
  assert.strictEqual(found.CreateIndex, found.ModifyIndex);
  // Any bytes, none, and names that a URL has to escape.
  const everything = Buffer.from(Array.from({ length: 4096 }, (_, at) => at % 256));
  assert(await kv.set("js/basics/bytes", everything));
  const bytes = await kv.get({ key: "js/basics/bytes", buffer: true });
  assert(everything.equals(bytes.Value));
  assert(everything.equals(await kv.get({ key: "js/basics/bytes", raw: true })));
  assert(await kv.set("js/basics/empty", ""));
  assert.strictEqual((await kv.get("js/basics/empty")).Value, null);
  for (const name of ["ü ñ", "a%2Fb", "q?x=1&y#z", "+", "trailing/", '"quoted"']) {
    const key = `js/basics/${name}`;
    assert(await kv.set(key, name));
    assert.strictEqual((await kv.get(key)).Key, key);
  }
  // The same again changes no index, a new value does.
  assert(await kv.set({ key: "js/basics/a", value: "text", flags: 42 }));
  assert.deepStrictEqual(await kv.get("js/basics/a"), found);
  assert(await kv.set("js/basics/a", "new"));
  const changed = await kv.get("js/basics/a");
  assert(changed.ModifyIndex > found.ModifyIndex);
  assert.deepStrictEqual([changed.CreateIndex, changed.Flags], [found.CreateIndex, 0]);
  assert.strictEqual(await kv.del("js/basics/a"), true);
  assert.strictEqual(await kv.del("js/basics/a"), true);
  assert.strictEqual(await kv.get("js/basics/a"), undefined);
}

/** Where the servers say `false`, this client says `undefined`. */
async function checkAndSet({ kv }) {
  const key = "js/cas";
  await kv.del(key);
  assert(!(await kv.set({ key, value: "1", cas: 17 })));
  assert.strictEqual(await kv.set({ key, value: "1", cas: 0 }), true);
  assert(!(await kv.set({ key, value: "2", cas: 0 })));
  const old = (await kv.get(key)).ModifyIndex;
  assert.strictEqual(await kv.set({ key, value: "3", cas: old }), true);
  assert(!(await kv.set({ key, value: "4", cas: old })));
  const now = await kv.get(key);
  assert.strictEqual(now.Value, "3");
  assert(!(await kv.del({ key, cas: old })));
  assert.strictEqual(await kv.del({ key, cas: now.ModifyIndex }), true);
}

async function listings({ kv }) {
  await kv.del({ key: "js/list", recurse: true });
  assert.strictEqual(await kv.get({ key: "js/list/", recurse: true }), undefined);
  const names = ["js/list/a", "js/list/b/1", "js/list/b/2", "js/list/c", "js/listed"];
  for (const name of names.slice().reverse()) assert(await kv.set(name, name));
  const rows = await kv.get({ key: "js/list", recurse: true });
  assert.deepStrictEqual(rows.map((row) => row.Key), names);
  assert.deepStrictEqual(rows.map((row) => row.Value), names);
  assert.deepStrictEqual(await kv.keys("js/list"), names);
  assert.deepStrictEqual(await kv.keys({ key: "js/list/", separator: "/" }), [
    "js/list/a",
    "js/list/b/",
    "js/list/c",
  ]);
  // A prefix is a prefix of bytes, not a folder.
  assert.strictEqual(await kv.del({ key: "js/list/b", recurse: true }), true);
  assert.deepStrictEqual(await kv.keys("js/list"), ["js/list/a", "js/list/c", "js/listed"]);
  assert.strictEqual(await kv.del({ key: "js/list", recurse: true }), true);
  await refused(404, "", kv.keys("js/list"));
}

async function refusals({ kv }) {
  const key = "js/bad";
  await refused(400, "Missing key name", kv.del(""));
  const both = kv.set({ key, value: "x", cas: 1, acquire: "x" });
  await refused(400, "Conflicting flags: acquire=x&cas=1", both);
  const number = kv.set({ key, value: "x", cas: "abc" });
  await refused(500, 'strconv.ParseUint: parsing "abc": invalid syntax', number);
  await refused(400, "Invalid wait time", kv.get({ key, index: 1, wait: "x" }));
  await refused(500, "No path to datacenter", kv.get({ key, dc: "nowhere" }));
  assert(await kv.set("js/big", "x".repeat(VALUE_BYTES_MAX)));
  const text = "Request body(524289 bytes) too large, max size: 524288 bytes";
  await refused(413, text, kv.set(key, "x".repeat(VALUE_BYTES_MAX + 1)));
  assert.strictEqual((await kv.get("js/big")).Value.length, VALUE_BYTES_MAX);
  assert(await kv.del("js/big"));
  assert.strictEqual(await kv.get(key), undefined);
}

module.exports = { part };
