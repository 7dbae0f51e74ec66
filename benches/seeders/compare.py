#!/usr/bin/env python3
"""Runs seeders side by side on this machine and writes the table in docs/benchmarks.md.

Each seeder runs by itself in a network namespace that has nothing but a loopback; rivals take turns
within a scenario, so that they meet the same machine. See benches/seeders/README.md.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
DOCS = HERE.parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
IP, PORT, API = "198.18.0.1", 6881, 6890
MIB = 1 << 20
READY_SECONDS = 300
TICKS = os.sysconf("SC_CLK_TCK")

SEEDERS = ["larder", "rtorrent", "transmission", "libtorrent"]
LOADS = {
    "s1": dict(connections=1, depth=250, seconds=20, bytes_max=1024 * MIB, sequential=True),
    "s2": dict(connections=50, depth=32, seconds=20, bytes_max=4096 * MIB),
    "s3": dict(connections=200, depth=32, seconds=20, bytes_max=4096 * MIB),
    "s6": dict(connections=200, depth=16, seconds=25, warmup=12, blocks_per_second=10),
    "s4": dict(connections=20, depth=16, seconds=42, warmup=12),
}
LIMITS = {"s4": 10 * MIB}
IDLE = "s5-1000"
IDLE_SECONDS = 15


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"d" + b"".join(bencode(k.encode()) + bencode(value[k]) for k in sorted(value)) + b"e"


def make_content(data, torrents, name, size, piece, seed):
    torrent = torrents / f"{name}.torrent"
    if torrent.exists():
        return
    source, left, hashes = random.Random(seed), size, b""
    with open(data / name, "wb") as file:
        while left:
            block = source.randbytes(min(piece, left))
            left -= len(block)
            hashes += hashlib.sha1(block).digest()
            file.write(block)
    info = {"name": name.encode(), "length": size, "piece length": piece, "pieces": hashes}
    torrent.write_bytes(bencode({"info": info}))


def prepare(work):
    for folder in ("data", "big", "many"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    make_content(work / "data", work / "big", "big.bin", 1024 * MIB, MIB, 1)
    for n in range(1000):
        make_content(work / "data", work / "many", f"small-{n:04}.bin", 256 << 10, 64 << 10, 100 + n)


def warm(work, big):
    for path in [work / "data" / "big.bin"] if big else sorted((work / "data").glob("small-*")):
        with open(path, "rb") as file:
            while file.read(4 * MIB):
                pass


class Namespace:
    """198.18.0.0/15, the range for benchmarks, looks like the internet to clients that spare the LAN."""

    def __init__(self):
        self.name = f"larder-bench-{os.getpid()}"
        for command in (["netns", "add", self.name], ["-n", self.name, "link", "set", "lo", "up"],
                        ["-n", self.name, "address", "add", f"{IP}/32", "dev", "lo"],
                        ["-n", self.name, "route", "add", "local", "198.18.0.0/15", "dev", "lo"]):
            subprocess.run(["ip", *command], check=True)
        # Both ends of every connection are in here, with the same congestion control for all.
        for control in ("cubic", "reno"):
            if subprocess.run(self.inside(["sysctl", "-qw", f"net.ipv4.tcp_congestion_control={control}"]),
                              stderr=subprocess.DEVNULL).returncode == 0:
                break

    def inside(self, command):
        return ["ip", "netns", "exec", self.name, *command]

    def remove(self):
        subprocess.run(["ip", "netns", "delete", self.name], check=False)


class Usage:
    """What a process and its children have used so far."""

    def __init__(self, root):
        self.cpu = self.switches = self.anonymous = 0
        todo = [root]
        for pid in todo:
            try:
                self.add(pid)
                for task in os.listdir(f"/proc/{pid}/task"):
                    todo += open(f"/proc/{pid}/task/{task}/children").read().split()
            except OSError:
                continue

    def add(self, pid):
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        self.cpu += sum(int(f) for f in fields[11:15]) / TICKS
        for task in os.listdir(f"/proc/{pid}/task"):
            self.switches += field(f"/proc/{pid}/task/{task}/status", "voluntary_ctxt_switches")
        self.anonymous += field(f"/proc/{pid}/status", "RssAnon") * 1024


def field(path, name):
    for line in open(path):
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise OSError(f"{path} has no {name}")


class Seeder:
    def __init__(self, name, scenario, work, namespace):
        self.name, self.namespace, self.process = name, namespace, None
        self.state = work / "state"
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir()
        many = scenario == IDLE
        self.torrents = work / ("many" if many else "big")
        self.env = {**os.environ, "STATE": str(self.state), "DATA": str(work / "data"),
                    "TORRENTS": str(self.torrents), "COUNT": "1000" if many else "1", "IP": IP,
                    "PORT": str(PORT), "API": str(API), "RATE": str(LIMITS.get(scenario, 0)),
                    "CONNS": str(LOADS.get(scenario, {}).get("connections", 0)), "HOME": str(self.state)}

    def verb(self, verb, fresh=True, **more):
        env = {**self.env, "FRESH": "1" if fresh else "0"}
        command = self.namespace.inside(["bash", str(HERE / f"{self.name}.sh"), verb])
        return subprocess.run(command, env=env, text=True, capture_output=True, **more)

    def start(self, fresh):
        """Seconds until it seeds."""
        if fresh:
            self.verb("prepare", check=True)
        log = open(self.state / "log", "a")
        command = self.namespace.inside(["bash", str(HERE / f"{self.name}.sh"), "start"])
        began = time.monotonic()
        self.process = subprocess.Popen(command, env={**self.env, "FRESH": "1" if fresh else "0"}, stdout=log,
                                        stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        if fresh:
            self.verb("add", check=True)
        while self.verb("ready", fresh).returncode != 0:
            if self.process.poll() is not None or time.monotonic() - began > READY_SECONDS:
                raise RuntimeError(f"{self.name} does not seed; see {self.state}/log")
            time.sleep(0.1)
        return time.monotonic() - began

    def usage(self):
        return Usage(str(self.process.pid))

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.verb("stop")
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        except ProcessLookupError:
            self.process.wait()


def measure_load(seeder, scenario, load_program):
    warm(seeder.torrents.parent, big=True)
    seeder.start(fresh=True)
    time.sleep(1)
    arguments = ["--torrent", str(seeder.torrents / "big.bin.torrent"), "--target", f"{IP}:{PORT}",
                 "--source", "198.18.1.1"]
    for name, value in LOADS[scenario].items():
        arguments += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    before, most = seeder.usage(), 0
    load = subprocess.Popen(seeder.namespace.inside([load_program, *arguments]), stdout=subprocess.PIPE, text=True)
    while load.poll() is None:
        time.sleep(0.25)
        most = max(most, seeder.usage().anonymous)
    after = seeder.usage()
    result = json.loads(load.stdout.read())
    gib = result["payload_bytes"] / (1 << 30)
    result.update(cpu_seconds_per_gib=(after.cpu - before.cpu) / gib if gib else None, anonymous_bytes=most,
                  switches_per_block=(after.switches - before.switches) / max(1, result["blocks"]))
    return result


def measure_idle(seeder):
    warm(seeder.torrents.parent, big=False)
    first = seeder.start(fresh=True)
    time.sleep(2)
    seeder.stop()
    again = seeder.start(fresh=False)
    time.sleep(5)
    before = seeder.usage()
    time.sleep(IDLE_SECONDS)
    after = seeder.usage()
    return dict(first_start_seconds=first, restart_seconds=again, anonymous_bytes=after.anonymous,
                cpu_percent=100 * (after.cpu - before.cpu) / IDLE_SECONDS,
                wakeups_per_second=(after.switches - before.switches) / IDLE_SECONDS)


def measure(name, scenario, work, namespace, load_program):
    seeder = Seeder(name, scenario, work, namespace)
    if seeder.verb(f"can-{scenario.split('-')[0]}").returncode == 3:
        return None
    try:
        if scenario == IDLE:
            return measure_idle(seeder)
        return measure_load(seeder, scenario, load_program)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"{name} {scenario}: {error}", file=sys.stderr)
        return None
    finally:
        seeder.stop()


class Table:
    """Medians over the rounds."""

    def __init__(self, results, seeders):
        self.results, self.seeders = results, seeders

    def median(self, seeder, scenario, key):
        runs = [r for r in self.results.get((seeder, scenario), []) if r and r.get(key) is not None]
        return statistics.median(r[key] for r in runs) if runs else None

    def row(self, what, scenario, key, text, scale=1.0, compare=False):
        cells, own = [], self.median("larder", scenario, key)
        for seeder in self.seeders:
            value = self.median(seeder, scenario, key)
            cell = "–" if value is None else text.format(value * scale)
            if compare and seeder != "larder" and value is not None and own:
                cell += f" ({value / own:.1f} ×)"
            cells.append(cell)
        return f"| {what} | " + " | ".join(cells) + " |"

    def lines(self, scenarios):
        yield "| | " + " | ".join(self.seeders) + " |"
        yield "| --- |" + " --- |" * len(self.seeders)
        has = [s for s in (*LOADS, IDLE) if s in scenarios]
        for scenario in has:
            if scenario != IDLE:
                yield self.row(f"{scenario}: CPU s/GiB", scenario, "cpu_seconds_per_gib", "{:.3f}", compare=True)
        if "s4" in has:
            limit = 1 / LIMITS["s4"]
            yield self.row("s4: mean, of the limit", "s4", "bytes_per_second", "{:.3f}", limit)
            yield self.row("s4: worst 1-s window, of the limit", "s4", "window_1_s_max_bytes_per_second", "{:.3f}", limit)
            yield self.row("s4: worst 100-ms window, of the limit", "s4", "window_100_ms_max_bytes_per_second", "{:.2f}", limit)
            yield self.row("s4: first block, p50, s", "s4", "first_block_seconds_p50", "{:.2f}")
        if "s2" in has:
            yield self.row("s2: Jain index", "s2", "jain", "{:.3f}")
        if "s3" in has:
            yield self.row("s3: anonymous memory, MiB", "s3", "anonymous_bytes", "{:.1f}", 1 / MIB)
        if "s6" in has:
            yield self.row("s6: context switches a block", "s6", "switches_per_block", "{:.2f}")
        if IDLE in has:
            yield self.row("1000 contents, idle: anonymous memory, MiB", IDLE, "anonymous_bytes", "{:.1f}", 1 / MIB)
            yield self.row("1000 contents, idle: CPU, %", IDLE, "cpu_percent", "{:.2f}")
            yield self.row("1000 contents, idle: wake-ups a second", IDLE, "wakeups_per_second", "{:.1f}")
            yield self.row("1000 contents: restart, s", IDLE, "restart_seconds", "{:.1f}")


def conditions(rounds, versions, loads):
    model = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    yield (f"Measured on {time.strftime('%Y-%m-%d')}: {os.cpu_count()} CPUs ({model}), Linux {platform.release()}, "
           f"medians of {rounds} round(s). Load average of the machine when the runs began: "
           f"{min(loads):.1f} to {max(loads):.1f}. In brackets: times Larder's figure.")
    yield "Versions: " + "; ".join(f"{name}: {text}" for name, text in versions.items()) + "."


def write(text, docs=DOCS):
    page = docs.read_text()
    head, rest = page.split(BEGIN)
    docs.write_text(head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", required=True, help="the built example `load`")
    parser.add_argument("--work", default="/var/tmp/larder-bench", type=pathlib.Path)
    parser.add_argument("--seeders", default=",".join(SEEDERS))
    parser.add_argument("--scenarios", default=",".join((*LOADS, IDLE)))
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("compare.py: run as root: it makes a network namespace")
    scenarios = args.scenarios.split(",")
    prepare(args.work)
    namespace, versions, results, loads = Namespace(), {}, {}, []
    try:
        for name in args.seeders.split(","):
            said = Seeder(name, "s1", args.work, namespace).verb("version")
            if said.returncode == 0 and said.stdout.strip():
                versions[name] = said.stdout.split("\n")[0].strip()
            else:
                print(f"{name} is not here; left out", file=sys.stderr)
        for turn in range(args.rounds):
            for scenario in scenarios:
                for name in list(versions)[:: -1 if turn % 2 else 1]:
                    loads.append(os.getloadavg()[0])
                    result = measure(name, scenario, args.work, namespace, args.load)
                    results.setdefault((name, scenario), []).append(result)
                    print(f"{turn + 1} {scenario} {name}: {json.dumps(result)}", file=sys.stderr, flush=True)
    finally:
        namespace.remove()
    text = "\n".join([*conditions(args.rounds, versions, loads), "", *Table(results, list(versions)).lines(scenarios)])
    print(text)
    if not args.no_write:
        write(text)


if __name__ == "__main__":
    main()
