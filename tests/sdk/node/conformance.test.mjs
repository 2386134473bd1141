// Every case directly and through the gateway: nothing an application sees differs.
// FAKE_URL and GATEWAY_URL say where the two are; `../stack.py plain` starts them.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { answers, broken, errors, sdks } from "./cases.mjs";
import { outcomeOf, providerHeaders, requestOf } from "./outcome.mjs";

const { FAKE_URL, GATEWAY_URL } = process.env;
const uuidV7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

async function bothWays(slug, call, model) {
  const { basePath, connect } = sdks[slug];
  const direct = await outcomeOf(call, () => connect(FAKE_URL + basePath), model, FAKE_URL);
  const through = await outcomeOf(call, () => connect(`${GATEWAY_URL}/${slug}`), model, FAKE_URL);
  assert.deepEqual(requestOf(through), requestOf(direct));
  assert.deepEqual(providerHeaders(through.headers), providerHeaders(direct.headers));
  assert.equal(through.headers["cf-aig-provider"], slug);
  assert.equal(through.headers["cf-aig-step"], "0");
  assert.match(through.headers["cf-aig-log-id"], uuidV7);
  assert.deepEqual(through.events, direct.events);
  return { direct, through };
}

function table(name, cases, check) {
  describe(name, () => {
    for (const [slug, call, model] of cases) {
      test(`${slug} ${call.name} ${model}`, async () => check(await bothWays(slug, call, model)));
    }
  });
}

table("the same objects as directly", answers, ({ direct, through }) => {
  assert.equal(direct.error, null);
  assert.equal(through.error, null);
  assert.ok(direct.events.length > 0);
});

table("the same error as directly", errors, ({ direct, through }) => {
  assert.notEqual(direct.error, null);
  assert.deepEqual(through.error, direct.error);
  assert.equal(through.headers["tollgate-error-source"], "provider");
});

table("a broken stream raises", broken, ({ direct, through }) => {
  assert.notEqual(direct.error, null);
  assert.notEqual(through.error, null, "the broken stream looked complete");
});
