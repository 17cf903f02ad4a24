// Runs parts of npm's consul against three servers; `tests/clients.rs` tells what the words mean.
//
// Each part is an async generator. What it does before its first `yield` it does while all servers
// run; between the first and the second a leader has just died; after the second all run again.

"use strict";

const readline = require("readline");
const Consul = require("consul");

const PARTS = {
  kv: require("./kv").part,
  txn: require("./txn").part,
  watch: require("./watch").part,
  session: require("./sessions").session,
  lock: require("./sessions").lock,
  catalog: require("./catalog").catalog,
  health: require("./catalog").health,
  agent: require("./agent").part,
};

/** A client for each server. The first two are followers at the start. */
class Cluster {
  constructor(addresses) {
    this.addresses = addresses;
    this.dead = null;
    this.clients = addresses.map((address) => {
      const at = address.lastIndexOf(":");
      return new Consul({ host: address.slice(0, at), port: address.slice(at + 1) });
    });
    const input = readline.createInterface({ input: process.stdin });
    this.answers = input[Symbol.asyncIterator]();
    this.input = input;
  }

  /** Clients of the servers that run. */
  alive() {
    return this.clients.filter((_, at) => this.addresses[at] !== this.dead);
  }

  async ask(what) {
    console.log(what);
    return (await this.answers.next()).value;
  }

  close() {
    this.input.close();
    this.clients.forEach((client) => client.destroy());
  }
}

async function main() {
  const cluster = new Cluster(process.argv[2].split(","));
  const names = process.argv[3].split(",");
  const parts = names.map((name) => [name, PARTS[name](cluster)]);
  const step = async () => {
    for (const [name, part] of parts) {
      console.error(`  ${name}`);
      await part.next();
    }
  };
  await step();
  cluster.dead = await cluster.ask("kill");
  if (!cluster.addresses.includes(cluster.dead)) throw new Error(cluster.dead);
  await step();
  if ((await cluster.ask("start")) !== "started") throw new Error("not started");
  cluster.dead = null;
  await step();
  names.forEach((name) => console.log(`done ${name}`));
  cluster.close();
}

main().catch((error) => {
  console.error(error.stack, error.statusCode || "");
  process.exit(1);
});
