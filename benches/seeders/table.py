"""Turns measurements into the table of docs/benchmarks.md, with a verdict on Larder's goals."""

import os
import platform
import statistics
import time

from scenarios import ROWS

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


class Table:
    """Medians over the rounds of what `records` has."""

    def __init__(self, records, seeders):
        self.records = records
        self.seeders = [s for s in seeders if any(r["seeder"] == s for r in records)]

    def median(self, seeder, row):
        here = [r["result"] for r in self.records if r["seeder"] == seeder and r["scenario"] == row.scenario]
        values = [r[row.key] / row.unit for r in here if r.get(row.key) is not None]
        return statistics.median(values) if values else None

    def text(self, conditions):
        return "\n".join([*self.conditions(conditions), "", *self.rows(), "", *self.left_out()])

    def conditions(self, conditions):
        model = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
        rounds = max(r["round"] for r in self.records)
        others = [r["result"]["others_share"] for r in self.records if "others_share" in r["result"]]
        busy = ", ".join(f"{100 * share:.0f} %" for share in
                         (statistics.median(others), max(others))) if others else "?"
        yield (f"Measured on {time.strftime('%Y-%m-%d')}: {os.cpu_count()} CPUs ({model}), Linux {platform.release()}, "
               f"TCP {conditions['congestion_control']}, medians of {rounds} round(s). Of the machine, others used "
               f"(median, most): {busy}. In brackets: times the floor's figure in the same run.")
        versions = {r["seeder"]: r["version"] for r in self.records}
        yield "Versions: " + "; ".join(f"{s}: {versions[s]}" for s in self.seeders) + "."
        if conditions["quick"]:
            yield "**A quick run: it shows that everything works; its figures are worth little.**"

    def rows(self):
        yield "| | " + " | ".join(self.seeders) + " | must / should | Larder | at this floor |"
        yield "| --- |" + " --- |" * (len(self.seeders) + 3)
        measured = {r["scenario"] for r in self.records}
        for row in ROWS:
            if row.scenario in measured:
                cells = [self.cell(seeder, row) for seeder in self.seeders]
                yield f"| {row.what} | " + " | ".join([*cells, *self.judge(row)]) + " |"

    def cell(self, seeder, row):
        value = self.median(seeder, row)
        if value is None:
            return "–"
        floor = self.median("floor", row) if row.of_floor and seeder != "floor" else None
        return row.text.format(value) + (f" ({value / floor:.2f} ×)" if floor else "")

    def judge(self, row):
        """The goal, the verdict, and the verdict if the goal is scaled by how much slower or faster the
        floor is here than where the goals were set."""
        goal, value = row.goal, self.median("larder", row)
        if goal is None:
            return ["", "", ""]
        sign = "≥" if goal.at_least else "≤"
        floor = self.median("floor", row) if goal.floor else None
        scaled = goal.verdict(value, floor / goal.floor) if floor else ""
        return [f"{sign} {goal.must:g} / {goal.should:g}", goal.verdict(value), scaled]

    def left_out(self):
        said = set()
        for r in self.records:
            why = r["result"].get("skipped") or r["result"].get("failed")
            if why and (r["seeder"], r["scenario"], why) not in said:
                said.add((r["seeder"], r["scenario"], why))
                yield f"- {r['seeder']}, {r['scenario']}: {why}"


def write_into(page, text):
    """Between the two lines; what is around them is written by people."""
    before = page.read_text()
    head, rest = before.split(BEGIN)
    page.write_text(head + BEGIN + "\n" + text.rstrip() + "\n" + END + rest.split(END)[1])
