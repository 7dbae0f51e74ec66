import { expect, test } from "vitest";
import { bytesPerSecondAt, stopNearest, STOPS_MBIT } from "../src/limit-scale";

test("stops rise by about a quarter each, from 0.5 to 1000 Mbit/s", () => {
  expect([STOPS_MBIT[0], STOPS_MBIT.at(-1)]).toEqual([0.5, 1000]);
  for (let i = 1; i < STOPS_MBIT.length; i += 1) {
    const step = (STOPS_MBIT[i] ?? 0) / (STOPS_MBIT[i - 1] ?? 1);
    expect(step).toBeGreaterThan(1.1);
    expect(step).toBeLessThan(1.4);
  }
});

test("every stop is a whole number of bytes and finds itself again", () => {
  STOPS_MBIT.forEach((mbit, stop) => {
    expect(bytesPerSecondAt(stop)).toBe(mbit * 125_000);
    expect(stopNearest(bytesPerSecondAt(stop))).toBe(stop);
  });
});

test("a limit set elsewhere gets the nearest stop, however odd", () => {
  expect(STOPS_MBIT[stopNearest(1_300_000)]).toBe(10);
  expect(stopNearest(0)).toBe(0);
  expect(STOPS_MBIT[stopNearest(10 ** 12)]).toBe(1000);
});
