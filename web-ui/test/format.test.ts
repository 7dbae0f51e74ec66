import { describe, expect, test } from "vitest";
import * as format from "../src/format";

const EN = "en-GB";

describe("sizes and rates", () => {
  test.each([
    [0, "0 B"],
    [999, "999 B"],
    [1_000, "1 kB"],
    [67_108_864, "67.1 MB"],
    [999_950_000, "1 GB"],
    [386_274_000_000, "386 GB"],
  ])("%d bytes read %s", (value, text) => expect(format.bytes(value, EN)).toBe(text));

  test.each([
    [0, "0"],
    [500, "< 0.01"],
    [62_500, "0.5"],
    [1_250_000, "10"],
    [1_306_250, "10.5"],
    [125_000_000, "1,000"],
  ])("%d bytes per second are %s Mbit/s", (value, text) =>
    expect(format.megabits(value, EN)).toBe(text),
  );
});

describe("money", () => {
  const shown = (micros: number) => format.money(micros, "CNY", EN, format.moneyDecimals(micros));

  test.each([
    [0, "¥0.00"],
    [6_710, "¥0.00671"],
    [13_420, "¥0.0134"],
    [1, "¥0.000001"],
    [412_500, "¥0.412"],
    [38_214_900, "¥38.21"],
  ])("%d micros read %s", (micros, text) => expect(shown(micros)).toBe(text));

  test("is never rounded up", () => {
    expect(format.money(1_999_999, "CNY", EN)).toBe("¥1.99");
    expect(format.money(999_999, "CNY", EN, 3)).toBe("¥0.999");
  });

  test("adds up on screen", () => {
    for (const [settled, pending] of [[1_830_000, 412_500], [6_710, 6_710], [0, 999]] as const) {
      const decimals = format.moneyDecimals(settled + pending);
      const rest = format.shownMicros(settled + pending, decimals) - format.shownMicros(settled, decimals);
      expect(rest).toBeGreaterThanOrEqual(0);
      expect(Math.abs(rest - pending)).toBeLessThan(10 ** (6 - decimals));
    }
  });

  test("takes an operator's own unit", () => {
    expect(format.money(2_500_000, "credits", EN)).toBe("2.50 credits");
  });
});

describe("time", () => {
  test.each([
    [899.2, "15:00"],
    [59, "0:59"],
    [0, "0:00"],
    [-3, "0:00"],
    [3_723, "1:02:03"],
  ])("%d seconds count down as %s", (seconds, text) =>
    expect(format.countdown(seconds)).toBe(text),
  );

  test("contact is told in whole steps, and a clock that runs behind says now", () => {
    expect(format.ago(1_000, 1_130, EN)).toBe("2 minutes ago");
    expect(format.ago(1_000, 1_130, "zh-CN")).toBe("2分钟前");
    expect(format.ago(1_000, 900, EN)).toBe("now");
  });
});

test("percent is rounded down, so that 100 % means complete", () => {
  expect(format.percent(999, 1_000, EN)).toBe("99%");
  expect(format.percent(1_000, 1_000, EN)).toBe("100%");
  expect(format.percent(0, 0, EN)).toBe("0%");
});

test("a name loses what would turn it around or hide it, and nothing else", () => {
  expect(format.plainName("\u202Egpj.elif\u202C \u0000ok")).toBe("gpj.elif ok");
  expect(format.plainName(" 城市漫游 <b>é</b> ")).toBe("城市漫游 <b>é</b>");
  expect(format.plainName("\u200b \ufeff")).toBe("");
});
