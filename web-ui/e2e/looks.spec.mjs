// Every state of the page, in both languages and themes, on the smallest phone and on a desk. The
// states come from dev/mock.mjs, because a real device cannot be talked into all of them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startMock } from "../dev/mock.mjs";
import { scenarios } from "../dev/scenarios.mjs";
import { openBrowser } from "./browser.mjs";
import { assertAccessible, assertNoMissingWords, assertNoSidewaysScroll, listen } from "./page.mjs";

let browser, server, origin;

before(async () => {
  server = await startMock(0);
  origin = `http://127.0.0.1:${server.address().port}`;
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});

const looks = [
  { locale: "en-GB", colorScheme: "light", viewport: { width: 320, height: 640 } },
  { locale: "zh-CN", colorScheme: "dark", viewport: { width: 320, height: 640 } },
  { locale: "en-GB", colorScheme: "dark", viewport: { width: 1200, height: 800 } },
  { locale: "zh-CN", colorScheme: "light", viewport: { width: 1200, height: 800 } },
];

for (const look of looks) {
  const name = `${look.locale} ${look.colorScheme} ${look.viewport.width} px`;
  test(`every state fits, reads and is usable: ${name}`, async () => {
    const context = await browser.newContext(look);
    const page = await context.newPage();
    const complaints = listen(page);
    for (const scenario of Object.keys(scenarios)) {
      await page.goto(`${origin}/?scenario=${scenario}`);
      await page.locator("form, .home").first().waitFor();
      await assertNoSidewaysScroll(page, scenario);
      await assertAccessible(page, `${scenario}, ${name}`);
      await assertNoMissingWords(page, scenario);
      assert.equal(await page.evaluate(() => document.documentElement.lang), look.locale);
    }
    assert.deepEqual(complaints, []);
    await context.close();
  });
}

test("hostile names stay text", async () => {
  const page = await browser.newPage();
  const complaints = listen(page);
  await page.goto(`${origin}/?scenario=hostile`);
  const names = page.locator(".name");
  await names.first().waitFor();
  assert.equal(await names.first().textContent(), `<img src=x onerror="document.title='owned'">`);
  assert.equal(await page.locator(".cache img, .cache script, .cache a").count(), 0);
  assert.equal(await page.title(), "Larder");
  assert.deepEqual(complaints, []);
  await page.close();
});

test("a lost connection is said, tried again, and forgotten when it is back", async () => {
  const own = await startMock(0);
  const { port } = own.address();
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${port}/?scenario=serving`);
  await page.locator(".home").waitFor();
  own.close();
  own.closeAllConnections();
  await page.getByText("No connection to the device").waitFor();
  assert.ok(await page.locator(".home").isVisible(), "what was known stays in sight");
  await assertAccessible(page, "connection lost");
  const back = await startMock(port);
  await page.getByRole("button", { name: "Try now" }).click();
  await page.getByText("No connection to the device").waitFor({ state: "detached" });
  await page.close();
  back.closeAllConnections();
  back.close();
});

test("everything can be reached and worked with the keyboard", async () => {
  const page = await browser.newPage();
  await page.goto(`${origin}/?scenario=serving`);
  await page.locator(".home").waitFor();
  const reached = [];
  for (let i = 0; i < 12; i += 1) {
    await page.keyboard.press("Tab");
    const id = await page.evaluate(() => {
      const element = document.activeElement;
      return element.id || element.textContent.trim();
    });
    if (reached.includes(id)) break;
    reached.push(id);
  }
  for (const wanted of ["中文", "15 min", "1 hour", "Until I resume", "limit", "Log out"])
    assert.ok(reached.includes(wanted), `${wanted} not in ${reached}`);

  await page.locator("#limit").focus();
  await page.keyboard.press("ArrowRight");
  await page.getByText("The device keeps to 25 Mbit/s.").waitFor();
  await page.getByRole("button", { name: "15 min" }).focus();
  await page.keyboard.press("Enter");
  await page.getByTestId("state").getByText(/^1[45]:\d\d$/).waitFor();
  await page.close();
});

test("the countdown stays in sight however far one scrolls", async () => {
  const page = await browser.newPage({ viewport: { width: 320, height: 640 } });
  await page.goto(`${origin}/?scenario=paused_for`);
  await page.locator(".home").waitFor();
  await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
  const pill = await page.getByTestId("state").boundingBox();
  assert.ok(pill && pill.y >= 0 && pill.y + pill.height < 100, JSON.stringify(pill));
  await page.close();
});
