"""The tables of docs/household.md, made from the figures of all runs. Measures nothing."""

import dataclasses
import math
import os
import pathlib
import platform
import time

import figures

DOCS = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "household.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclasses.dataclass(frozen=True)
class Row:
    what: str
    mode: str
    key: str
    text: str
    scale: float = 1
    must: float | None = None
    should: float | None = None
    higher_is_better: bool = False

    def worst(self):
        """What stands for "not within the time that we waited"."""
        return -math.inf if self.higher_is_better else math.inf

    def show(self, value):
        return "not seen" if math.isinf(value) else self.text.format(value * self.scale)

    def cell(self, spread):
        if spread.median is None:
            return "–"
        if spread.count == 1:
            return self.show(spread.median)
        return f"{self.show(spread.median)} ({self.show(spread.least)} to {self.show(spread.most)})"

    def goal(self, value):
        return "" if value is None else ("≥ " if self.higher_is_better else "≤ ") + self.show(value)

    def verdict(self, spreads):
        """Of the worse number of peers."""
        if self.must is None or not spreads or any(spread.median is None for spread in spreads):
            return ""
        value = (min if self.higher_is_better else max)(spread.median for spread in spreads)
        return figures.verdict(value, self.must, self.should, self.higher_is_better)


MS, SECONDS, PERCENT = ("{:.1f} ms", 1000), ("{:.2f} s", 1), ("{:.1f} %", 100)
ROUGH_MS = ("{:.0f} ms", 1000)
GOALS = [
    Row("auto: added ping, p95", "auto", "ping_p95", *MS, 0.005, 0.0025),
    Row("auto: added ping, p99", "auto", "ping_p99", *MS, 0.010, 0.005),
    Row("auto: idle uplink used meanwhile", "auto", "share", *PERCENT, 0.9, 0.9, True),
    Row("fixed limit of 90 %: added ping, p95", "fixed", "ping_p95", *MS, 0.002, 0.001),
    Row("fixed limit of 90 %: added ping, p99", "fixed", "ping_p99", *MS, 0.004, 0.002),
    Row("fixed limit of 90 %: uplink used meanwhile", "fixed", "share", *PERCENT, higher_is_better=True),
    Row("household upload starts: device at half after", "auto", "half", *ROUGH_MS, 0.35, 0.25),
    Row("household upload starts: device under 10 % after", "auto", "tenth", *ROUGH_MS, 0.6, 0.4),
    Row("household upload, of having the line alone", "auto", "upload_of_alone", *PERCENT, 0.97, 0.985, True),
    Row("device back to 90 % after the upload", "auto", "back", *SECONDS, 8, 5),
    Row("household download, of having the line alone", "auto", "download_of_alone", *PERCENT, 0.95, 0.97, True),
    Row("uplink from 20 to 8 Mbit/s: settled after", "auto", "settled", *SECONDS, 3, 1.5),
    Row("uplink from 20 to 8 Mbit/s: used from then on", "auto", "narrow_share", *PERCENT, higher_is_better=True),
    Row("uplink back to 20 Mbit/s: device back to 90 % after", "auto", "wide_back", *SECONDS),
]
UNMANAGED = [
    Row("added ping, p95", "unmanaged", "ping_p95", *MS),
    Row("added ping, p99", "unmanaged", "ping_p99", *MS),
    Row("idle uplink used meanwhile", "unmanaged", "share", *PERCENT, higher_is_better=True),
    Row("household upload, of having the line alone", "unmanaged", "upload_of_alone", *PERCENT, higher_is_better=True),
]
ALONE = [
    Row("added ping, p95", "alone", "ping_p95", *MS),
    Row("added ping, p99", "alone", "ping_p99", *MS),
    Row("household upload", "alone", "upload_rate", "{:.2f} Mbit/s", 8e-6, higher_is_better=True),
    Row("household download", "alone", "download_rate", "{:.2f} Mbit/s", 8e-6, higher_is_better=True),
]


def spread(results, row, peers):
    return figures.Spread([found[row.key] for found in results.get((row.mode, peers), []) if row.key in found],
                          row.worst())


def goals(results, peers):
    yield "| what | must | should | " + " | ".join(f"{n} peers" for n in peers) + " | meets |"
    yield "| --- | --- | --- |" + " --- |" * len(peers) + " --- |"
    for row in GOALS:
        spreads = [spread(results, row, n) for n in peers]
        cells = [row.goal(row.must), row.goal(row.should), *map(row.cell, spreads), row.verdict(spreads)]
        yield f"| {row.what} | " + " | ".join(cells) + " |"


def anchors(results, peers):
    yield ("| what | no seeder | " + " | ".join(f"without a limit, {n} peers" for n in peers) + " |")
    yield "| --- | --- |" + " --- |" * len(peers)
    by_name = {row.what: row for row in ALONE}
    for row in UNMANAGED:
        alone = by_name.pop(row.what, None)
        cells = [alone.cell(spread(results, alone, 0)) if alone else ""]
        cells += [row.cell(spread(results, row, n)) for n in peers]
        yield f"| {row.what} | " + " | ".join(cells) + " |"
    for row in by_name.values():
        yield f"| {row.what} | {row.cell(spread(results, row, 0))} |" + " |" * len(peers)


def conditions(results, options, lab, minutes):
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    loads = [found["load"] for runs in results.values() for found in runs]
    counts = {len(runs) for runs in results.values()} or {0}
    runs = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)} (some failed)"
    quick = " Quick: short parts, for a first look only." if options.quick else ""
    load = f"{min(loads):.1f} to {max(loads):.1f}" if loads else "unknown"
    return (f"Measured on {time.strftime('%Y-%m-%d')} in {minutes:.0f} minutes: {os.cpu_count()} CPUs ({model}), "
            f"Linux {platform.release()}. Medians of {runs} run(s), the least and the most in brackets. Load average of the "
            f"machine when the runs began: {load}. Uplink {lab.UPLINK / 1e6:.0f} Mbit/s behind a buffer of "
            f"{lab.UPLINK_BUFFER}, downlink {lab.DOWNLINK / 1e6:.0f} Mbit/s, base round trip "
            f"{2 * lab.ONE_WAY_MICROSECONDS / 1000:.0f} ms, all TCP is CUBIC.{quick}")


def page(results, options, lab, minutes):
    return "\n".join([
        conditions(results, options, lab, minutes), "",
        "Larder against its goals (the worse number of peers counts):", "", *goals(results, options.peers), "",
        "What the machine and the line do by themselves, and what a seeder without any limit does to them:", "",
        *anchors(results, options.peers)])


def write(text):
    document = DOCS.read_text()
    head, rest = document.split(BEGIN)
    DOCS.write_text(head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
