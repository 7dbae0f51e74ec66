// A real larderd with a real hub behind it, started through `larder demo`, and a downloader that nobody
// here wrote (aria2c) to measure what leaves it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";

const TARGET = process.env.CARGO_TARGET_DIR ?? new URL("../../target", import.meta.url).pathname;
const LARDER = process.env.LARDER_BIN ?? join(TARGET, "debug/larder");
const PATIENCE_MS = 120_000;

export function temporaryFolder() {
  const path = mkdtempSync(join(tmpdir(), "larder-web-e2e-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Random bytes: nothing on the way can compress or guess them. */
export function makeContent(path, mebibytes) {
  const file = openSync(path, "w");
  for (let i = 0; i < mebibytes; i += 1) writeSync(file, randomBytes(1 << 20));
  closeSync(file);
}

/** Resolves when the device serves `content`, with what `larder demo --json` printed. */
export async function startDemo(content) {
  const child = spawn(LARDER, ["demo", "--json", "--content", content], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let complaints = "";
  child.stderr.on("data", (chunk) => (complaints = (complaints + chunk).slice(-4000)));
  const exited = once(child, "exit");
  const stop = async () => {
    child.kill("SIGTERM");
    const [code] = await exited;
    return code;
  };
  const firstLine = new Promise((resolve) =>
    createInterface({ input: child.stdout }).once("line", resolve),
  );
  const line = await Promise.race([
    firstLine,
    exited.then(() => null),
    new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, null).unref()),
  ]);
  if (line === null) {
    await stop();
    throw new Error(`${LARDER} demo did not get to serving:\n${complaints}`);
  }
  return { ...JSON.parse(line), stop };
}

/** aria2c on a .torrent, fed by the device alone, asked over its own RPC how much it has received. */
export async function startDownload(torrent, folder) {
  const port = await freePort();
  const child = spawn(
    "aria2c",
    [
      "--no-conf", "--quiet", "--enable-rpc", `--rpc-listen-port=${port}`, `--dir=${folder}`,
      "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
      "--enable-peer-exchange=false", "--seed-time=0", "--file-allocation=none",
      `--stop-with-process=${process.pid}`,
    ],
    { stdio: "ignore" },
  );
  const exited = once(child, "exit");
  const call = async (method, ...params) => {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: `aria2.${method}`, params });
    const response = await fetch(`http://127.0.0.1:${port}/jsonrpc`, { method: "POST", body });
    return (await response.json()).result;
  };
  await until("aria2c answers", () => call("getVersion").catch(() => null));
  const id = await call("addTorrent", withoutWebSeed(readFileSync(torrent)).toString("base64"));
  return {
    receivedBytes: async () =>
      Number((await call("tellStatus", id, ["completedLength"])).completedLength),
    stop: async () => {
      child.kill("SIGTERM");
      await exited;
    },
  };
}

/** Asks until the answer is truthy. */
export async function until(what, ask, patienceMs = 30_000) {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`within ${patienceMs / 1000} s, not true: ${what}`);
    await pause(200);
  }
}

/** Only between questions, and as the length of a measurement. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Else aria2c would take most of it from the hub. `url-list` sorts after all other keys (BEP 3, 19). */
function withoutWebSeed(metainfo) {
  const at = metainfo.lastIndexOf("8:url-list");
  return at < 0 ? metainfo : Buffer.concat([metainfo.subarray(0, at), Buffer.from("e")]);
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
