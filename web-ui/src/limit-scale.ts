// The slider's stops: round numbers, ten to a decade, because the difference between 1 and 2 Mbit/s
// matters as much as the one between 100 and 200.

const DECADE = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8] as const;
const BYTES_PER_MEGABIT = 125_000;

/** 0.5 to 1000 Mbit/s: from the thinnest ADSL uplink to fibre. */
export const STOPS_MBIT: readonly number[] = [
  ...[5, 6, 8].map((n) => n / 10),
  ...DECADE,
  ...DECADE.map((n) => n * 10),
  ...DECADE.map((n) => Math.round(n * 100)),
  1000,
];

export function bytesPerSecondAt(stop: number): number {
  const last = STOPS_MBIT.length - 1;
  const mbit = STOPS_MBIT[Math.max(0, Math.min(last, Math.round(stop)))] ?? 1;
  return Math.round(mbit * BYTES_PER_MEGABIT);
}

/** The stop nearest to a limit that may have been set elsewhere, by ratio. */
export function stopNearest(bytesPerSecond: number): number {
  const wanted = Math.log(Math.max(1, bytesPerSecond) / BYTES_PER_MEGABIT);
  let best = 0;
  STOPS_MBIT.forEach((mbit, index) => {
    const distance = (n: number) => Math.abs(Math.log(n) - wanted);
    if (distance(mbit) < distance(STOPS_MBIT[best] ?? 1)) best = index;
  });
  return best;
}
