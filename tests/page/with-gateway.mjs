// Runs a command with a real gateway behind it: the binary with its built-in mock provider, some calls
// through it, and the address of its first page in TOLLGATE_PAGE_URL.
//
//   node with-gateway.mjs node --test smoke.test.mjs
//
// TOLLGATE_BIN   the binary; default target/debug/tollgate

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const binary = process.env.TOLLGATE_BIN ?? join(here, "../../target/debug/tollgate");
const READY_MS = 30_000;

/** A port that nobody listens on right now. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function ended(child) {
  return new Promise((resolve) => child.once("exit", (code) => resolve(code ?? 1)));
}

async function ready(url) {
  const until = Date.now() + READY_MS;
  while (Date.now() < until) {
    const answer = await fetch(`${url}readyz`).catch(() => null);
    if (answer?.ok) return;
    await sleep(50);
  }
  throw new Error(`${binary} is not ready after ${READY_MS} ms`);
}

/** Good answers, streamed and not, and errors, so that there is something to see. */
async function call(base) {
  for (const [model, stream] of [["gpt-4o-mini", false], ["gpt-4o-mini", true], ["error-500", false]]) {
    const messages = [{ role: "user", content: "<b>What does the sea say?</b>" }];
    const answer = await fetch(`${base}/v1/default/default/mock/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", "cf-aig-metadata": '{"team":"page"}' },
      body: JSON.stringify({ model, stream, messages }),
    });
    await answer.text();
  }
}

const directory = await mkdtemp(join(tmpdir(), "tollgate-page-"));
const [port, admin] = [await freePort(), await freePort()];
const conf = join(directory, "tollgate.yaml");
await writeFile(conf, `server: { listen: ["127.0.0.1:${port}"], upgrade_socket: "${directory}/upgrade.sock" }
admin: { listen: "127.0.0.1:${admin}" }
data_dir: "${directory}/data"
providers: { mock: {} }
accounts: { default: { gateways: { default: {} } } }
`);
const gateway = spawn(binary, ["--conf", conf], { stdio: "ignore" });
const gone = ended(gateway);
let code = 1;
try {
  const url = `http://127.0.0.1:${admin}/`;
  await ready(url);
  await call(`http://127.0.0.1:${port}`);
  const [program, ...rest] = process.argv.slice(2);
  const command = spawn(program, rest, { stdio: "inherit", env: { ...process.env, TOLLGATE_PAGE_URL: url } });
  code = await ended(command);
} finally {
  gateway.kill("SIGTERM");
  await gone;
  await rm(directory, { recursive: true, force: true });
}
process.exitCode = code;
