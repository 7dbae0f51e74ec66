// Takes pictures of every scenario, in both languages and themes, on a phone and on a desk, to look at:
// `npm run screens -- OUT_DIR [scenario…]`.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { openBrowser } from "../e2e/browser.mjs";
import { startMock } from "./mock.mjs";
import { scenarios } from "./scenarios.mjs";

const [out = "screens", ...chosen] = process.argv.slice(2);
mkdirSync(out, { recursive: true });
const server = await startMock(0);
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await openBrowser();
try {
  for (const locale of ["en-GB", "zh-CN"])
    for (const colorScheme of ["light", "dark"])
      for (const [size, width, height] of [["phone", 320, 640], ["desk", 1200, 800]]) {
        const context = await browser.newContext({ locale, colorScheme, viewport: { width, height } });
        const page = await context.newPage();
        page.on("console", (m) => m.type() === "error" && console.error(`${page.url()}: ${m.text()}`));
        page.on("pageerror", (e) => console.error(`${page.url()}: ${e}`));
        for (const scenario of chosen.length ? chosen : Object.keys(scenarios)) {
          await page.goto(`${origin}/?scenario=${scenario}`);
          await page.locator("form, .home").first().waitFor();
          await page.screenshot({
            path: join(out, `${scenario}-${size}-${colorScheme}-${locale.slice(0, 2)}.png`),
            fullPage: true,
          });
        }
        await context.close();
      }
} finally {
  await browser.close();
  server.close();
  server.closeAllConnections();
}
