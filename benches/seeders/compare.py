#!/usr/bin/env python3
"""Runs seeders side by side on this machine and writes the table in docs/benchmarks.md.

Each seeder runs by itself in a network namespace that has nothing but a loopback; rivals take turns
within a scenario, so that they meet the same machine. See benches/seeders/README.md.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time

import machine
import scenarios
from run import HERE, Seeder, measure
from table import Table, write_into

DOCS = HERE.parent.parent / "docs" / "benchmarks.md"
SEEDERS = ["floor", "larder", "rtorrent", "qbittorrent", "libtorrent", "transmission", "rqbit"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path, help="folder of the built examples")
    parser.add_argument("--work", default="/var/tmp/larder-bench", type=pathlib.Path, help="1.3 GB go there")
    parser.add_argument("--seeders", default=",".join(SEEDERS))
    parser.add_argument("--scenarios", default=",".join(scenarios.SCENARIOS))
    parser.add_argument("--rounds", default=2, type=int, help="medians of so many; idle figures need one")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that all works; writes nothing")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run ended")
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    args = parser.parse_args()
    args.seeders, args.scenarios = args.seeders.split(","), args.scenarios.split(",")
    for given, known in ((args.seeders, SEEDERS), (args.scenarios, scenarios.SCENARIOS)):
        for name in given:
            if name not in known:
                parser.error(f"{name} is none of {', '.join(known)}")
    if args.quick:
        args.rounds, args.no_write = 1, True
    if os.geteuid() != 0:
        parser.error("run me as root: I make a network namespace")
    return args


class Records:
    """One line of JSON for each run, written when it ends, so that nothing measured is lost. A run that
    failed and was made again counts as the later one."""

    def __init__(self, path, resume):
        self.path, self.by_run = path, {}
        if path.exists() and not resume:
            path.rename(path.with_suffix(time.strftime(".%Y%m%d-%H%M%S.jsonl")))
        for line in path.read_text().splitlines() if path.exists() else []:
            self.keep(json.loads(line))

    def keep(self, record):
        self.by_run[record["round"], record["scenario"], record["seeder"]] = record

    def has(self, *run):
        return run in self.by_run and "failed" not in self.by_run[run]["result"]

    def add(self, record):
        self.keep(record)
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")


def plan(args, present, records):
    """Runs to do, in order: rivals next to each other in time, backwards in every other round."""
    for turn in range(1, args.rounds + 1):
        for scenario in args.scenarios:
            if turn <= scenarios.ROUNDS_MAX.get(scenario, args.rounds):
                for seeder in present[:: 1 if turn % 2 else -1]:
                    if not records.has(turn, scenario, seeder):
                        yield turn, scenario, seeder


def find_seeders(args, namespace, group):
    versions = {}
    for name in args.seeders:
        seeder = Seeder(name, "s1", args.work, namespace, group)
        seeder.clear()
        version = seeder.version()
        if version:
            versions[name] = version
        else:
            say(f"{name} is not here and left out; README.md of this folder says where to get it")
    return versions


def run_all(args, namespace, group, records):
    versions = find_seeders(args, namespace, group)
    runs = list(plan(args, list(versions), records))
    minutes = sum(scenarios.forecast_seconds(scenario, args.quick) for _, scenario, _ in runs) / 60
    say(f"{len(runs)} runs, about {minutes:.0f} minutes on a quiet machine; --resume goes on after an interruption")
    for done, (turn, scenario, name) in enumerate(runs, 1):
        began = time.monotonic()
        seeder = Seeder(name, scenario, args.work, namespace, group)
        result = measure(seeder, scenario, str(args.programs / "load"), args.quick)
        records.add(dict(round=turn, scenario=scenario, seeder=name, version=versions[name], result=result))
        say(f"{done}/{len(runs)} round {turn} {scenario} {name}: {summary(result)} ({time.monotonic() - began:.0f} s)")


def summary(result):
    for word in ("skipped", "failed"):
        if word in result:
            return f"{word}: {result[word]}"
    if "cpu_percent" in result:
        return f"{result['cpu_percent']:.2f} % CPU, {result['wakeups_per_second']:.1f} wake-ups a second"
    rate = result["bytes_per_second"] / machine.MIB
    return f"{result['cpu_seconds_per_gib']:.3f} CPU s/GiB, {rate:.0f} MiB/s, others {100 * result['others_share']:.0f} %"


def say(text):
    print(text, file=sys.stderr, flush=True)


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    args = arguments()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, interrupt)
    machine.prepare(args.work)
    os.environ["LARDER_PROGRAMS"] = str(args.programs)
    # Quick figures never mix with others.
    records = Records(args.work / ("quick.jsonl" if args.quick else "results.jsonl"), args.resume)
    namespace, group, whole = machine.Namespace(), machine.Group(), True
    try:
        run_all(args, namespace, group, records)
    except KeyboardInterrupt:
        whole = False
        say("interrupted; what was measured follows")
    finally:
        namespace.remove()
        group.remove()
    if records.by_run:
        conditions = dict(congestion_control=namespace.congestion_control, quick=args.quick)
        text = Table(list(records.by_run.values()), SEEDERS).text(conditions)
        print(text)
        if whole and not args.no_write:
            write_into(DOCS, text)
    sys.exit(0 if whole else 130)


if __name__ == "__main__":
    main()
