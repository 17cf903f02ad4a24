// Transactions: all or nothing.

"use strict";

const assert = require("assert");
const { refused } = require("./support");

const text = (value) => Buffer.from(value).toString("base64");

const op = (Verb, key, fields) => ({ KV: { Verb, Key: `js/txn/${key}`, ...fields } });

async function* part(cluster) {
  for (const client of cluster.clients) await transactions(client);
  const kept = op("set", "survives", { Value: text("1"), Flags: 7 });
  await cluster.clients[0].transaction.create([kept]);
  yield;
  for (const client of cluster.alive()) {
    const { Results } = await client.transaction.create([op("get", "survives")]);
    assert.deepStrictEqual([Results[0].KV.Value, Results[0].KV.Flags], [text("1"), 7]);
    await transactions(client);
  }
  yield;
  for (const client of cluster.clients) await transactions(client);
}

async function transactions({ kv, transaction }) {
  await kv.del({ key: "js/txn/t/", recurse: true });
  const written = await transaction.create([
    op("check-not-exists", "t/a"),
    op("set", "t/a", { Value: text("1") }),
    op("set", "t/b", { Value: text("2"), Flags: 3 }),
    op("get", "t/a"),
  ]);
  assert.strictEqual(written.Errors, null);
  const rows = written.Results.map((row) => row.KV);
  assert.deepStrictEqual(rows.map((row) => row.Value), [null, null, text("1")]);
  assert.strictEqual(new Set(rows.map((row) => row.ModifyIndex)).size, 1);
  const a = await kv.get("js/txn/t/a");
  assert.deepStrictEqual([a.Value, a.ModifyIndex], ["1", rows[0].ModifyIndex]);
  // Reads alone.
  const read = await transaction.create([
    op("get-tree", "t/"),
    op("check-index", "t/a", { Index: a.ModifyIndex }),
  ]);
  assert.deepStrictEqual(
    read.Results.slice(0, 2).map((row) => row.KV.Key),
    ["js/txn/t/a", "js/txn/t/b"],
  );
  // One operation fails: nothing happens, and each that failed is named.
  const stale = op("cas", "t/a", { Index: 1, Value: text("x") });
  await refused(
    409,
    "",
    transaction.create([op("delete", "t/b"), stale, op("get", "missing")]),
  );
  assert.strictEqual((await kv.get("js/txn/t/b")).Flags, 3);
  const many = Array.from({ length: 129 }, () => op("get", "t/a"));
  await refused(413, "too many operations (129 > 128)", transaction.create(many));
  const last = await transaction.create([
    op("cas", "t/a", { Index: a.ModifyIndex, Value: text("3") }),
    op("delete-tree", "t/b"),
  ]);
  assert.strictEqual(last.Errors, null);
  assert.deepStrictEqual(await kv.keys("js/txn/t/"), ["js/txn/t/a"]);
}

module.exports = { part };
