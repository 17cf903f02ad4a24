// What several parts need.

"use strict";

const assert = require("assert");

const PATIENCE_MS = 60000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Polls until `check` gives something true, which is returned. */
async function eventually(what, check) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await check();
    if (found) return found;
    assert(Date.now() < deadline, `${what()}: not in time`);
    await sleep(50);
  }
}

/** Waits for a refusal with this status and this in its text. */
async function refused(status, text, call) {
  try {
    await call;
  } catch (error) {
    assert.strictEqual(error.statusCode, status, error.stack);
    const body = error.response ? error.response.body : error.message;
    const said = `${error.message} ${typeof body === "string" ? body : JSON.stringify(body)}`;
    assert(said.includes(text), `${said} does not hold ${text}`);
    return;
  }
  assert.fail(`not refused: ${text}`);
}

/**
 * A write, again if its outcome is unknown: it went to a leader that died before it answered, and
 * may or may not take effect. Consul's clients meet the same answer with the same remedy.
 */
async function insist(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!error.message.includes("leadership lost while committing log")) throw error;
    }
  }
}

module.exports = { eventually, insist, refused };
