// What came of a call: parsed objects or error, the response headers, and what the provider saw.

const addedByGateway = /^(cf-aig-|tollgate-)/;
const hopByHop = new Set(["connection", "keep-alive", "transfer-encoding"]);
const stampedByGateway = new Set(["date"]); // Pingora does, on every response
const perCall = new Set(["host", "idempotency-key", "traceparent"]);

export async function outcomeOf(call, client, model, fakeUrl) {
  await takeRecords(fakeUrl);
  const responses = [];
  const events = [];
  let error = null;
  await observingFetch(responses, async () => {
    try {
      const result = await call(await client(), model);
      for await (const event of eventsOf(result)) events.push(plain(event));
    } catch (raised) {
      error = describe(raised);
    }
  });
  const records = await takeRecords(fakeUrl);
  return { events, error, headers: Object.fromEntries(responses.at(-1).headers), records };
}

export const providerHeaders = (headers) =>
  filtered(
    headers,
    (name) => !hopByHop.has(name) && !stampedByGateway.has(name) && !addedByGateway.test(name),
  );

export function requestOf({ records }) {
  if (records.length !== 1) throw new Error(`${records.length} requests instead of one`);
  const { method, path, query, body_base64, headers } = records[0];
  const kept = filtered(
    Object.fromEntries(headers),
    (name) => !hopByHop.has(name) && !perCall.has(name),
  );
  return { method, path, query, body_base64, headers: kept };
}

// SDKs take the global fetch when a client is made, so clients are made in `action`.
async function observingFetch(responses, action) {
  const { fetch } = globalThis;
  globalThis.fetch = async (...request) => {
    const response = await fetch(...request);
    responses.push(response);
    return response;
  };
  try {
    await action();
  } finally {
    globalThis.fetch = fetch;
  }
}

async function* eventsOf(result) {
  if (result[Symbol.asyncIterator]) yield* result;
  else yield result;
}

const plain = (value) => JSON.parse(JSON.stringify(value));

const describe = (error) => ({
  class: error.constructor.name,
  status: error.status,
  message: error.message,
  error: error.error,
});

const filtered = (headers, keep) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => keep(name)));

export async function takeRecords(fakeUrl) {
  const answer = await fetch(`${fakeUrl}/_control/records`);
  return answer.json();
}
