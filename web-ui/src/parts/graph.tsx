// uPlot, wrapped: rates in, a quiet area chart out. No interaction, so nothing to learn.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useI18n, type I18n } from "../i18n";

const SECONDS = 60;
const HEIGHT = 168;
/** A silent line still wants an axis. */
const SMALLEST_TOP_MBIT = 1;

interface Props {
  /** Bytes per second, oldest first. */
  history: number[];
  limit: number;
  /** What the picture says, for those who do not see it. */
  label: string;
}

export function Graph({ history, limit, label }: Props) {
  const words = useI18n();
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const data = series(history, limit);
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element, words), latest.current, element);
    };
    draw();
    const resized = new ResizeObserver(() =>
      plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }),
    );
    resized.observe(element);
    // The colours are the style sheet's, read when drawing: a change of theme draws anew.
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", draw);
    return () => {
      theme.removeEventListener("change", draw);
      resized.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [words]);

  useEffect(() => plot.current?.setData(data), [history, limit]);

  return <div class="graph" ref={box} role="img" aria-label={label} />;
}

/** Seconds before now; rates and the limit in Mbit/s. */
function series(history: number[], limit: number): uPlot.AlignedData {
  const mbit = (bytesPerSecond: number) => (bytesPerSecond * 8) / 1_000_000;
  const shown = history.slice(-SECONDS);
  const seconds = Array.from({ length: SECONDS }, (_, i) => i - SECONDS + 1);
  const missing = new Array<null>(SECONDS - shown.length).fill(null);
  return [seconds, [...missing, ...shown.map(mbit)], seconds.map(() => mbit(limit))];
}

function options(element: HTMLElement, { t, locale }: I18n): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const tick = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 });
  const axis = { stroke: colour("--quiet"), font: `12px ${style.fontFamily}`, ticks: { show: false } };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false, range: [1 - SECONDS, 0] }, y: { range: top } },
    axes: [
      {
        ...axis,
        grid: { show: false },
        splits: () => [1 - SECONDS, -SECONDS / 2, 0],
        values: (_, splits) =>
          splits.map((s) => (s === 0 ? t("now") : t("seconds_ago", { n: Math.round(-s / 10) * 10 }))),
        size: 28,
      },
      {
        ...axis,
        grid: { stroke: colour("--line"), width: 1 },
        values: (_, splits) => splits.map((s) => tick.format(s)),
        size: 44,
        space: 44,
      },
    ],
    series: [
      {},
      { stroke: colour("--accent"), fill: colour("--accent-wash"), width: 2, points: { show: false } },
      { stroke: colour("--quiet"), width: 1, dash: [4, 4], points: { show: false } },
    ],
  };
}

/** Up to the limit when the line comes near it, else up to the line: a far limit would flatten it. */
function top(plot: uPlot): uPlot.Range.MinMax {
  const highest = (values: ArrayLike<number | null | undefined> | undefined) =>
    Array.from(values ?? []).reduce<number>((most, v) => Math.max(most, v ?? 0), 0);
  const peak = highest(plot.data[1]);
  const limit = highest(plot.data[2]);
  const reach = peak > limit * 0.3 ? Math.max(peak, limit) * 1.1 : peak * 1.5;
  return [0, Math.max(reach, SMALLEST_TOP_MBIT)];
}
