// Watches: the client's own loop of blocking queries, through the death of the leader too.

"use strict";

const assert = require("assert");
const { eventually, insist } = require("./support");

/** What a key or a tree became, one after the other. */
function follow(client, key, recurse) {
  const watch = client.watch({
    method: client.kv.get,
    options: { key, recurse, wait: "20s" },
    backoffFactor: 20,
    backoffMax: 500,
  });
  const seen = [];
  watch.on("change", (data) => {
    const rows = recurse ? data || [] : data ? [data] : [];
    seen.push(Object.fromEntries(rows.map((row) => [row.Key, row.Value])));
  });
  // It tries again by itself; it would not after a 400 or an answer without an index.
  watch.on("error", () => {});
  return { watch, seen, key };
}

async function allSee(follows, expected) {
  for (const { watch, seen, key } of follows) {
    const what = () => `${key} becomes ${JSON.stringify(expected)}, seen ${JSON.stringify(seen)}`;
    const same = (last) => JSON.stringify(last) === JSON.stringify(expected);
    await eventually(what, () => seen.length && same(seen[seen.length - 1]));
    assert(watch.isRunning());
  }
}

async function* part(cluster) {
  const [first, second, third] = cluster.clients;
  await first.kv.del({ key: "js/watch/", recurse: true });
  const keys = cluster.clients.map((client) => follow(client, "js/watch/a", false));
  const trees = cluster.clients.map((client) => follow(client, "js/watch/", true));
  await allSee([...keys, ...trees], {});
  assert(await second.kv.set("js/watch/a", "1"));
  await allSee([...keys, ...trees], { "js/watch/a": "1" });
  assert(await third.kv.set("js/watch/b", "2"));
  await allSee(trees, { "js/watch/a": "1", "js/watch/b": "2" });
  // A change of its neighbour is none of the key.
  keys.forEach(({ seen }) => assert.deepStrictEqual(seen[seen.length - 1], { "js/watch/a": "1" }));
  yield;
  const [one, other] = cluster.alive();
  const living = (_, at) => cluster.addresses[at] !== cluster.dead;
  assert(await insist(() => one.kv.set("js/watch/a", "3")));
  await allSee(keys.filter(living), { "js/watch/a": "3" });
  await allSee(trees.filter(living), { "js/watch/a": "3", "js/watch/b": "2" });
  assert(await other.kv.del("js/watch/a"));
  await allSee(keys.filter(living), {});
  await allSee(trees.filter(living), { "js/watch/b": "2" });
  yield;
  // The watches of the server that died go on where they were, now that it is back.
  await allSee(keys, {});
  await allSee(trees, { "js/watch/b": "2" });
  assert(await first.kv.del({ key: "js/watch/", recurse: true }));
  await allSee([...keys, ...trees], {});
  [...keys, ...trees].forEach(({ watch }) => watch.end());
}

module.exports = { part };
