// Pretends to be a device, for looking at the page in every state: `npm run mock`, then open
// http://127.0.0.1:8099/?scenario=attention. It proves nothing about larderd; `npm run e2e` does that.
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { pathToFileURL } from "node:url";
import { scenarios } from "./scenarios.mjs";

const DIST = new URL("../dist/", import.meta.url).pathname;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
/** As larderd sends it, so that what breaks there breaks here. */
const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
  "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

export function startMock(port, first = "serving") {
  let scenario = first;
  let session = { password_set: true, logged_in: true };
  let changes = {};
  const status = () => ({ ...scenarios[scenario](), ...changes });

  const answers = {
    "GET session": () => session,
    "POST setup": () => (session = { password_set: true, logged_in: true }),
    "POST login": () => (session = { password_set: true, logged_in: true }),
    "POST logout": () => (session = { ...session, logged_in: false }),
    "GET status": status,
    "PUT limit": (body) => {
      changes = { ...changes, ...body, egress_bytes_per_second_allowed: body.egress_bytes_per_second_max };
      return status();
    },
    "PUT pause": ({ pause, seconds }) => {
      const view = pause === "for" ? { pause, seconds_left: seconds } : { pause };
      changes = { ...changes, pause: view, state: pause === "off" ? "serving" : "paused", allowance_reason: pause === "off" ? "limit" : "paused" };
      return status();
    },
  };

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://mock");
    response.setHeader("Content-Security-Policy", CSP);
    if (url.pathname === "/api/v1/events") return stream(response);
    if (url.pathname.startsWith("/api/v1/")) {
      let text = "";
      for await (const chunk of request) text += chunk;
      const answer = answers[`${request.method} ${url.pathname.slice(8)}`];
      response.writeHead(answer ? 200 : 404, { "Content-Type": "application/json" });
      return response.end(JSON.stringify(answer?.(JSON.parse(text || "{}")) ?? {}));
    }
    if (url.searchParams.has("scenario")) {
      scenario = url.searchParams.get("scenario");
      changes = {};
      session = { password_set: scenario !== "first_run", logged_in: !["first_run", "login"].includes(scenario) };
    }
    const path = join(DIST, normalize(url.pathname === "/" ? "/index.html" : url.pathname));
    if (!path.startsWith(DIST) || !existsSync(path)) return response.writeHead(404).end();
    response.setHeader("Content-Type", TYPES[extname(path)] ?? "application/octet-stream");
    createReadStream(path).pipe(response);
  });

  function stream(response) {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    const send = () => response.write(`event: status\ndata: ${JSON.stringify(status())}\n\n`);
    send();
    const timer = setInterval(send, 1000);
    response.on("close", () => clearInterval(timer));
  }

  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(server)));
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const server = await startMock(Number(process.env.PORT ?? 8099));
  console.log(`http://127.0.0.1:${server.address().port}/?scenario=${Object.keys(scenarios).join("|")}`);
}
