// What the tests ask of any page: nothing went wrong in it, nothing is hard to use in it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/** Collects what a page complains about, the browser's CSP reports included. */
export function listen(page) {
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  return complaints;
}

/** WCAG A and AA and axe's best practices: no violation at all. */
export async function assertAccessible(page, where) {
  // Through the debugger, which the page's CSP does not bind.
  const session = await page.context().newCDPSession(page);
  await session.send("Runtime.evaluate", { expression: AXE });
  await session.detach();
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const told = violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" | ")}`);
  assert.deepEqual(told, [], where);
}

export async function assertNoSidewaysScroll(page, where) {
  const [content, window] = await page.evaluate(() => [
    document.documentElement.scrollWidth,
    document.documentElement.clientWidth,
  ]);
  assert.ok(content <= window, `${where}: ${content} px wide in a window of ${window} px`);
}

/** A key that has no words shows as itself or as an unfilled hole. Others' words may look so. */
export async function assertNoMissingWords(page, where) {
  const text = await page.evaluate(() => {
    const body = document.body.cloneNode(true);
    body.querySelectorAll(".name, .problem[lang]").forEach((element) => element.remove());
    return body.textContent;
  });
  assert.doesNotMatch(text, /undefined|NaN|\[object|\{\w+\}|[a-z]+(_[a-z]+)+/, where);
}
