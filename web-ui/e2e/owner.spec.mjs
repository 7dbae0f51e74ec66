// The owner's first evening with a real device: from the one-time code to a limit that holds on the
// wire. The tests build on each other, in order, over one larderd.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { openBrowser } from "./browser.mjs";
import { makeContent, pause, startDemo, startDownload, temporaryFolder, until } from "./device.mjs";
import { assertAccessible, assertNoMissingWords, assertNoSidewaysScroll, listen } from "./page.mjs";

const PASSWORD = "a sentence of our own";
/** What a hostile operator or publisher would try; it is a legal file name. */
const HOSTILE_NAME = `<img src=x onerror="document.title='owned'">.bin`;
const CONTENT_MEBIBYTES = 48;
const MEASURED_SECONDS = 6;

let folder, demo, browser, page, complaints, download;

before(async () => {
  folder = temporaryFolder();
  const content = join(folder.path, HOSTILE_NAME);
  makeContent(content, CONTENT_MEBIBYTES);
  demo = await startDemo(content);
  browser = await openBrowser();
  page = await browser.newPage({ locale: "en-GB", viewport: { width: 320, height: 640 } });
  complaints = listen(page);
});

after(async () => {
  await download?.stop();
  await browser?.close();
  await demo?.stop();
  folder?.remove();
});

/** Failed requests are complaints of the browser's; these are the ones that a test provoked. */
function expectComplaint(status) {
  assert.equal(complaints.filter((c) => c.includes(`status of ${status}`)).length, 1, complaints.join());
  complaints.length = 0;
}

test("a wrong code is refused", async () => {
  await page.goto(demo.admin_url);
  await page.getByRole("heading", { name: "Welcome" }).waitFor();
  await assertAccessible(page, "first run");
  await page.getByLabel("One-time code").fill("AAAA-AAAA");
  await page.getByLabel("New password").fill(PASSWORD);
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByRole("alert").getByText("That code is wrong").waitFor();
  expectComplaint(403);
});

test("the right code sets the password and shows the device serving", async () => {
  // As a QR code or the demo's link would bring it: the code fills itself in and leaves the address.
  await page.goto("about:blank");
  await page.goto(`${demo.admin_url}#setup=${demo.setup_code}`);
  await page.getByLabel("New password").fill(PASSWORD);
  assert.equal(await page.getByLabel("One-time code").inputValue(), demo.setup_code);
  assert.ok(!page.url().includes(demo.setup_code));
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByTestId("state").getByText(/Serving|Ready/).waitFor();
  const row = page.locator(`[data-infohash="${demo.infohash}"]`);
  await row.getByText("Serving").waitFor();
  await assertNoSidewaysScroll(page, "home");
  await assertAccessible(page, "home");
});

test("a content's title cannot become markup", async () => {
  const name = page.locator(`[data-infohash="${demo.infohash}"] .name`);
  assert.equal(await name.textContent(), HOSTILE_NAME);
  assert.equal(await page.locator("main img, main script").count(), 0);
  assert.equal(await page.title(), "Larder");
});

test("the cookie is out of the page's reach and the code is used up", async () => {
  assert.equal(await page.evaluate(() => document.cookie), "");
  const [cookie] = await page.context().cookies(`${demo.admin_url}api/`);
  assert.equal(cookie.httpOnly, true);
  assert.equal(cookie.sameSite, "Strict");
  const response = await fetch(`${demo.admin_url}api/v1/setup`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ setup_code: demo.setup_code, password: "another password" }),
  });
  assert.equal(response.status, 409);
});

test("both languages have words for everything", async () => {
  await assertNoMissingWords(page, "English");
  await page.getByRole("button", { name: "中文" }).click();
  await page.getByRole("heading", { name: "收益" }).waitFor();
  await assertNoMissingWords(page, "Chinese");
  await assertNoSidewaysScroll(page, "Chinese");
  await page.getByRole("button", { name: "English" }).click();
  await page.getByRole("heading", { name: "Earnings" }).waitFor();
});

test("logging out closes the page, a wrong password does not open it, the right one does", async () => {
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await assertAccessible(page, "login");
  await page.getByLabel("Password", { exact: true }).fill("not the password");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("That password is wrong.").waitFor();
  expectComplaint(403);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByTestId("state").waitFor();
  await page.reload();
  await page.getByTestId("state").waitFor();
});

test("the slider's limit is confirmed by the device and holds on the wire", async () => {
  const limit = await setLimit(4);
  assert.equal(limit, 500_000);
  download = await startDownload(demo.torrent, join(folder.path, "received"));
  await until("the download has begun", async () => (await download.receivedBytes()) > 0);
  const slow = await measuredBytesPerSecond();
  // Payload only, in pieces of 16 KiB; what the limit counts has headers on top.
  assert.ok(slow <= limit * 1.05 && slow > limit * 0.6, `${slow} B/s under a limit of ${limit}`);

  const wider = await setLimit(12);
  const fast = await measuredBytesPerSecond();
  assert.ok(fast <= wider * 1.05 && fast > wider * 0.6, `${fast} B/s under a limit of ${wider}`);
  await page.getByTestId("state").getByText("Serving").waitFor();
  const shown = Number(await page.getByTestId("rate").textContent());
  assert.ok(shown > 7 && shown <= 12.6, `the page shows ${shown} Mbit/s`);
});

test("a pause is silence on the wire, and resuming ends it", async () => {
  await page.getByRole("button", { name: "Until I resume" }).click();
  await page.getByText("Paused until you resume").waitFor();
  // What was already on its way may still arrive.
  let before = -1;
  await until("nothing more arrives", async () => {
    const now = await download.receivedBytes();
    const silent = now === before;
    before = now;
    if (!silent) await pause(800);
    return silent;
  });
  assert.equal(await measuredBytesPerSecond(3), 0);
  assert.match(await page.getByTestId("state").textContent(), /Paused/);

  await page.getByRole("button", { name: "Resume now" }).click();
  await page.getByRole("button", { name: "15 min" }).waitFor();
  await until("bytes flow again", async () => (await download.receivedBytes()) > before);
});

test("a pause of 15 minutes counts down", async () => {
  await page.getByRole("button", { name: "15 min" }).click();
  const left = page.getByTestId("state").locator(".countdown");
  await left.getByText(/^14:5\d$/).waitFor();
  await page.getByRole("button", { name: "Resume now" }).click();
  await left.waitFor({ state: "detached" });
});

test("nothing went wrong in the page all evening", () => {
  assert.deepEqual(complaints, []);
});

/** Moves the slider with the keyboard to a stop and waits for the device's word. */
async function setLimit(mbit) {
  const slider = page.locator("#limit");
  const stop = await slider.evaluate((element, wanted) => {
    // Stops are ten to a decade from 0.5; the page's own scale says which one it is.
    const stops = [0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12];
    return stops.indexOf(wanted) - Number(element.value);
  }, mbit);
  const confirmed = page.waitForResponse(
    async (r) =>
      r.url().endsWith("/limit") &&
      (await r.json()).egress_bytes_per_second_max === mbit * 125_000,
  );
  await slider.focus();
  for (let i = 0; i < Math.abs(stop); i += 1)
    await page.keyboard.press(stop > 0 ? "ArrowRight" : "ArrowLeft");
  await confirmed;
  await page.getByTestId("limit-said").getByText(`keeps to ${mbit} Mbit/s`).waitFor();
  return mbit * 125_000;
}

async function measuredBytesPerSecond(seconds = MEASURED_SECONDS) {
  const started = Date.now();
  const before = await download.receivedBytes();
  await pause(seconds * 1000);
  return ((await download.receivedBytes()) - before) / ((Date.now() - started) / 1000);
}
