#!/usr/bin/env python3
"""Measures what a household notices of Larder, and writes the tables in docs/household.md.

Each run has a home of its own in network namespaces: see benches/household/README.md and docs/household.md.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import sys
import time

import device
import figures
import lab
import tables

PEERS = [8, 40]
ALONE = "alone"
# Before anything else in a run, the household's pings tell its base round trip: long enough for a median.
IDLE_SECONDS = 2
# What is in buffers when a transfer ends has arrived by then.
DRAIN_SECONDS = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """Seconds of each part of a run. Zero leaves it out."""

    settle: float
    ping: float
    upload: float = 0
    recovery: float = 0
    download: float = 0
    narrow: float = 0
    wide: float = 0

    def total(self):
        return sum(dataclasses.astuple(self)) + 2 * DRAIN_SECONDS


FULL = {
    ALONE: Plan(settle=0, ping=6, upload=12, download=6),
    "unmanaged": Plan(settle=3, ping=5, upload=12),
    "fixed": Plan(settle=2, ping=10),
    "auto": Plan(settle=8, ping=10, upload=12, recovery=10, download=6, narrow=8, wide=7),
}
QUICK = {
    ALONE: Plan(settle=0, ping=3, upload=5, download=4),
    "unmanaged": Plan(settle=2, ping=3, upload=5),
    "fixed": Plan(settle=2, ping=4),
    "auto": Plan(settle=4, ping=5, upload=5, recovery=6, download=4, narrow=4, wide=4),
}


class Run:
    """One home, one mode, one number of peers: plays the plan and notes when what happened."""

    def __init__(self, options, mode, peers, plan, name):
        self.options, self.mode, self.peers, self.plan = options, mode, peers, plan
        self.folder = options.work / "runs" / name
        self.moments = {}

    def play(self):
        self.folder.mkdir(parents=True)
        with lab.Lab(self.folder) as home:
            self.home = home
            answers = home.traffic(lab.WAN, "serve", lab.WAN_ADDRESS)
            answers.stdout.readline()
            self.always = [answers, home.traffic(lab.HOUSE, "ping", lab.WAN_ADDRESS, str(self.folder / "pings"),
                                                 realtime=True)]
            lab.wait_for((self.folder / "pings").exists, "the ping did not start")
            self.span("idle", IDLE_SECONDS)
            if self.mode != ALONE:
                self.start_device()
            self.span("settle", self.plan.settle)
            self.span("ping", self.plan.ping)
            self.transfer("upload", self.plan.upload)
            self.span("recovery", self.plan.recovery)
            self.transfer("download", self.plan.download)
            self.uplink("narrow", lab.UPLINK_NARROW, self.plan.narrow)
            self.uplink("wide", lab.UPLINK, self.plan.wide)
            time.sleep(DRAIN_SECONDS)
        self.save()
        return Recording(self.folder, self.moments)

    def start_device(self):
        content = device.make(self.options.work)
        larderd = device.Device(self.home, self.options.larderd, self.mode, content, self.folder)
        larderd.start()
        peers = device.Peers(self.home, self.options.load, content[0], self.peers, self.plan.total() + 60)
        self.always += [larderd.process, peers.process]

    def span(self, name, seconds):
        if seconds:
            began = time.time()
            time.sleep(seconds)
            self.moments[name] = (began, began + seconds)
            self.check()

    def transfer(self, name, seconds):
        if seconds:
            process = self.home.traffic(lab.HOUSE, name, lab.WAN_ADDRESS, str(seconds))
            said = process.communicate(timeout=seconds + 60)[0]
            self.check()
            if process.returncode != 0:
                raise lab.LabError(f"the household's {name} failed")
            said = json.loads(said)
            self.moments[name] = (said["began"], said["began"] + seconds)

    def uplink(self, name, rate, seconds):
        if seconds:
            self.home.set_uplink(rate)
            self.span(name, seconds)

    def check(self):
        for process in self.always:
            if process.poll() is not None:
                raise lab.LabError(f"{' '.join(process.args[4:6])} ended before the run was over; see {self.folder}")

    def save(self):
        """So that a run can be looked at again."""
        (self.folder / "moments.json").write_text(json.dumps(self.moments))


class Recording:
    """What a run left behind, and the figures in it."""

    def __init__(self, folder, moments):
        self.moments = moments
        up, down = (figures.packets((folder / name).read_bytes()) for name in ("up.packets", "down.packets"))
        own, house = lab.as_bytes(lab.DEVICE_LAN), lab.as_bytes(lab.HOUSE_LAN)
        self.device = [(time, size) for time, address, size, _ in up if address == own]
        self.upload, self.download = (
            [(time, size) for time, address, size, protocol in log if address == house and protocol == figures.TCP]
            for log in (up, down))
        lines = map(str.split, (folder / "pings").read_text().splitlines())
        self.pings = sorted(((float(sent), None if trip == "lost" else float(trip)) for sent, trip in lines),
                            key=lambda ping: ping[0])

    def pings_in(self, part):
        began, ended = self.moments[part]
        return [ping for ping in self.pings if began <= ping[0] < ended]

    def figures(self):
        self.base = figures.percentile([trip for _, trip in self.pings_in("idle") if trip is not None], 0.5)
        if self.base is None:
            raise lab.LabError("no ping came back on an idle line")
        found = {}
        for part in ("ping", "upload", "recovery", "download", "narrow", "wide"):
            if part in self.moments:
                found.update(getattr(self, f"in_{part}")(*self.moments[part]))
        return found

    def in_ping(self, began, ended):
        delays = figures.added_delays(self.pings_in("ping"), self.base)
        self.usual = figures.mean_rate(self.device, began, ended)
        return {"ping_p95": figures.percentile(delays, 0.95), "ping_p99": figures.percentile(delays, 0.99),
                "share": self.usual * 8 / lab.UPLINK}

    def in_upload(self, began, ended):
        rate = {"upload_rate": figures.mean_rate(self.upload, began, ended)}
        if not self.device:
            return rate
        return {**rate, "half": figures.falls_to(self.device, began, ended, self.usual / 2),
                "tenth": figures.falls_to(self.device, began, ended, self.usual / 10)}

    def in_recovery(self, _, ended):
        """From the household's last packet on, which has waited in the uplink's buffer."""
        began = max(time for time, _ in self.upload if time < ended)
        return {"back": figures.rises_to(self.device, began, ended, 0.9 * self.usual)}

    def in_download(self, began, ended):
        return {"download_rate": figures.mean_rate(self.download, began, ended)}

    def in_narrow(self, began, ended):
        settled = figures.calm_after([ping for ping in self.pings if ping[0] < ended], began, self.base)
        used = figures.mean_rate(self.device, began + settled, ended) if settled is not None else None
        return {"settled": settled, "narrow_share": used and used * 8 / lab.UPLINK_NARROW}

    def in_wide(self, began, ended):
        return {"wide_back": figures.rises_to(self.device, began, ended, 0.9 * self.usual)}


def compare_with_alone(found, alone):
    """In the same round, so that the machine is the same."""
    for part in ("upload", "download"):
        if f"{part}_rate" in found and f"{part}_rate" in alone:
            found[f"{part}_of_alone"] = found[f"{part}_rate"] / alone[f"{part}_rate"]


def measure(options, results):
    plans = QUICK if options.quick else FULL
    shutil.rmtree(options.work / "runs", ignore_errors=True)
    for turn in range(options.rounds):
        alone = {}
        todo = [(ALONE, 0)] + [(mode, peers) for mode in options.modes for peers in options.peers]
        for mode, peers in todo:
            load = os.getloadavg()[0]
            name = f"{turn + 1}-{mode}" + (f"-{peers}" if peers else "")
            try:
                found = Run(options, mode, peers, plans[mode], name).play().figures()
            except lab.LabError as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            if mode == ALONE:
                alone = found
            else:
                compare_with_alone(found, alone)
            found["load"] = load
            results.setdefault((mode, peers), []).append(found)
            print(f"{name}: {json.dumps(found)}", file=sys.stderr, flush=True)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path, help="cargo's release folder")
    parser.add_argument("--larderd", type=pathlib.Path, help="another build of it, to compare")
    parser.add_argument("--work", default="/var/tmp/larder-household", type=pathlib.Path)
    parser.add_argument("--modes", default=list(device.LIMITS), type=lambda text: text.split(","))
    parser.add_argument("--peers", default=PEERS, type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--rounds", type=int, help="default: 5, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="short parts: two minutes, to see that all works")
    parser.add_argument("--no-write", action="store_true", help="print the tables only")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    if unknown := set(options.modes) - set(device.LIMITS):
        parser.error(f"no such mode: {', '.join(sorted(unknown))}; there are {', '.join(device.LIMITS)}")
    options.larderd = options.larderd or options.programs / "larderd"
    options.load = options.programs / "examples" / "load"
    lab.Lab.relay = options.programs / "examples" / "delay_relay"
    for program in (options.larderd, options.load, lab.Lab.relay):
        if not program.exists():
            parser.error(f"{program} is missing: run this as `make bench-household`, which builds it")
    return options


def end(signal_number, _):
    sys.exit(128 + signal_number)


def main():
    options = parse_options()
    if os.geteuid() != 0:
        sys.exit("bench.py: run as root: it makes network namespaces")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    lab.remove_leftovers()
    results, began = {}, time.monotonic()
    try:
        measure(options, results)
    except lab.LabError as error:
        sys.exit(f"bench.py: {error}")
    text = tables.page(results, options, lab, (time.monotonic() - began) / 60)
    print(text)
    if not options.no_write:
        tables.write(text)


if __name__ == "__main__":
    main()
