import { expect, test } from "vitest";
import { ApiFailure } from "../src/api";
import { chooseLanguage, failureText, i18n, MESSAGES, text, type Key, type Message } from "../src/i18n";
import { components, modules } from "./sources";

const keys = Object.keys(MESSAGES.en) as Key[];
const forms = (message: Message) => (typeof message === "string" ? [message] : Object.values(message));
const holes = (message: string) => [...message.matchAll(/\{(\w+)\}/g)].map((m) => m[1]).sort();

test("every key has words in both languages, with the same holes", () => {
  expect(Object.keys(MESSAGES.zh).sort()).toEqual([...keys].sort());
  for (const key of keys) {
    const expected = holes(forms(MESSAGES.en[key])[0] ?? "");
    for (const form of [...forms(MESSAGES.en[key]), ...forms(MESSAGES.zh[key])]) {
      expect(form.trim(), key).not.toBe("");
      expect(holes(form), `${key}: ${form}`).toEqual(expected);
    }
  }
});

test("Chinese is Chinese", () => {
  const latin = keys.filter((key) => forms(MESSAGES.zh[key]).every((f) => !/\p{Script=Han}/u.test(f)));
  expect(latin).toEqual(["content_filled", "version"]);
});

test("no word lies unused, and none is written into a component", () => {
  const code = [...components, ...modules].join("\n");
  const prefixes = ["state_", "says_", "reason_", "content_", "fails_"];
  const unused = keys.filter(
    (key) => !code.includes(`"${key}"`) && !code.includes(`.${key}`) && !prefixes.some((p) => key.startsWith(p)),
  );
  expect(unused).toEqual([]);
  const loose = [...components.join("\n").matchAll(/(?<!=)>\s*([A-Za-z\p{Script=Han}][^<>{}=;()]*)</gu)].map((m) => m[1]?.trim());
  expect(loose.filter((words) => !["Larder", "Mbit/s"].includes(words ?? ""))).toEqual([]);
});

test("plurals follow the language", () => {
  const message = { one: "{n} report", other: "{n} reports" };
  expect(text(message, "en-GB", { n: 1 })).toBe("1 report");
  expect(text(message, "en-GB", { n: 0 })).toBe("0 reports");
  expect(text("{n} 份", "zh-CN", { n: 1 })).toBe("1 份");
});

test("values are filled in once, and holes in them stay text", () => {
  expect(text("{a} {b}", "en-GB", { a: "{b}", b: "x" })).toBe("{b} x");
});

test("the owner's choice goes before the browser's, and English is the last resort", () => {
  expect(chooseLanguage("zh", ["en-US"])).toBe("zh");
  expect(chooseLanguage(null, ["fr", "zh-TW", "en"])).toBe("zh");
  expect(chooseLanguage("tlh", ["fr"])).toBe("en");
});

test("failures are told in the reader's language, unknown ones in the device's words", () => {
  const zh = i18n("zh");
  expect(failureText(zh, new ApiFailure("wrong_password", "…"))).toBe("密码不对。");
  expect(failureText(zh, new ApiFailure("too_many_tries", "…", 10), 7)).toContain("7");
  expect(failureText(zh, new ApiFailure("device", "no room"))).toBe("设备回复：no room");
});
