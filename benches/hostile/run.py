#!/usr/bin/env python3
"""Measures what honest peers, memory and the owner's page notice of hostile peers, and writes the table
in docs/hostile.md.

Everything runs in a network namespace that has nothing but a loopback: `larderd` with its default limits
on connections, honest peers (examples/load.rs) and one attack at a time (examples/attack.rs). Runs without
an attack come first and last, and the honest peers' rate is compared with those.
"""

import argparse
import http.client
import json
import os
import pathlib
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "seeders"))
import machine  # noqa: E402
import table  # noqa: E402

DOCS = HERE.parent.parent / "docs" / "hostile.md"
PEERS, PAGE = f"{machine.IP}:6881", "127.0.0.1:6890"
MIB = machine.MIB
CALM = "–"


def poll(seconds):
    """In the namespace: how long the page takes to answer, in ms."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        page = http.client.HTTPConnection(PAGE, timeout=30)
        page.request("GET", "/api/v1/session")
        assert page.getresponse().status == 200
        page.close()
        took.append(1000 * (time.monotonic() - began))
        time.sleep(0.02)
    took.sort()
    print(json.dumps({"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "answers": len(took)}))


def field(path, name):
    return next(int(line.split()[1]) for line in open(path) if line.startswith(name + ":"))


class Device:
    def __init__(self, larderd, work, namespace, limit):
        self.namespace, self.state = namespace, work / "hostile"
        subprocess.run(["rm", "-rf", str(self.state)], check=True)
        self.state.mkdir()
        config = self.state / "larderd.toml"
        config.write_text(f"""data_dir = "{self.state}/data"
[serve]
listen = ["{PEERS}"]
egress_bytes_per_second_max = {limit}
[admin]
listen = "{PAGE}"
""")
        options = ["--config", str(config)]
        subprocess.run([larderd, "preload", *options, "--torrents", str(work / "big"), "--data", str(work / "data")],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = open(self.state / "log", "w")
        self.process = subprocess.Popen(namespace.inside([larderd, *options]), stdout=log, stderr=log)
        # `ip netns exec` becomes the program, so this is its own id.
        while "larderd is ready" not in (self.state / "log").read_text():
            if self.process.poll() is not None:
                raise RuntimeError((self.state / "log").read_text())
            time.sleep(0.05)
        time.sleep(1)

    def memory(self):
        return field(f"/proc/{self.process.pid}/status", "RssAnon") * 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def measure(attack, args, namespace):
    device = Device(args.larderd, args.work, namespace, args.limit)
    start = lambda command: subprocess.Popen(namespace.inside(command), stdout=subprocess.PIPE, text=True)
    try:
        before, most = device.memory(), 0
        torrent, seconds = str(args.work / "big" / "big.bin.torrent"), args.seconds
        honest = start([args.load, "--torrent", torrent, "--target", PEERS, "--connections", "8", "--depth", "16",
                        "--warmup", "4", "--seconds", str(seconds + 4), "--source", "198.18.1.1"])
        time.sleep(2)
        attacker = attack and start([args.attack, "--attack", attack, "--torrent", torrent, "--target", PEERS,
                                     "--source", "198.19.0.1", "--seconds", str(seconds + 2)])
        page = start([sys.executable, __file__, "--poll", str(seconds)])
        while honest.poll() is None:
            time.sleep(0.1)
            most = max(most, device.memory())
        result = json.loads(honest.stdout.read())
        result.update(page=json.loads(page.communicate()[0]), memory=(before, most),
                      attack=json.loads(attacker.communicate()[0]) if attack else {})
        return result
    finally:
        device.stop()


def row(attack, runs, calm):
    share = [r["bytes_per_second"] / statistics.mean(calm) for r in runs]
    opened = statistics.median(r["attack"].get("opened", 0) for r in runs)
    before, most = (statistics.median(r["memory"][i] for r in runs) / MIB for i in (0, 1))
    p50, p99 = (statistics.median(r["page"][p] for r in runs) for p in ("p50", "p99"))
    rate = "100 %" if attack is None else f"{100 * statistics.median(share):.1f} %"
    closed = sum(r["connections_closed"] for r in runs)
    return (f"| {attack or CALM} | {opened:.0f} | {rate} | {closed} | {before:.1f} → {most:.1f} | {p50:.1f} / {p99:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for program in ("larderd", "load", "attack"):
        parser.add_argument(f"--{program}", help=f"the built {program}")
    parser.add_argument("--work", default="/var/tmp/larder-bench", type=pathlib.Path)
    parser.add_argument("--limit", default=2_500_000, type=int, help="bytes per second on the wire")
    parser.add_argument("--seconds", default=12, type=int, help="of each measurement")
    parser.add_argument("--rounds", default=1, type=int)
    parser.add_argument("--attacks", default="", help="some of them, with commas between")
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    parser.add_argument("--poll", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.poll:
        return poll(args.poll)
    if os.geteuid() != 0:
        sys.exit("run.py: run as root: it makes a network namespace")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    machine.make_content(args.work / "data", args.work / "big", "big.bin", 1024 * MIB, MIB, 1)
    known = subprocess.run([args.attack, "--attack", "list"], check=True, capture_output=True, text=True).stdout.split()
    attacks = args.attacks.split(",") if args.attacks else known
    namespace, runs, loads = machine.Namespace(), {}, []
    try:
        for turn in range(args.rounds):
            for attack in [None, *attacks, None]:
                loads.append(os.getloadavg()[0])
                result = measure(attack, args, namespace)
                runs.setdefault(attack, []).append(result)
                print(f"{turn + 1} {attack}: {json.dumps(result)}", file=sys.stderr, flush=True)
    finally:
        namespace.remove()
    calm = [r["bytes_per_second"] for r in runs[None]]
    lines = [f"Measured on {time.strftime('%Y-%m-%d')}: {os.cpu_count()} CPUs, Linux {platform.release()}, medians of "
             f"{args.rounds} round(s) of {args.seconds} s, limit {args.limit:,} bytes a second on the wire. Load average of "
             f"the machine when the runs began: {min(loads):.1f} to {max(loads):.1f}.",
             f"Undisturbed, the honest peers have {statistics.mean(calm):,.0f} bytes of payload a second.", "",
             "| attack | connections opened | honest peers' rate | honest peers closed | anonymous memory, MiB | page, ms (p50 / p99) |",
             "| --- | --- | --- | --- | --- | --- |", *(row(a, runs[a], calm) for a in [None, *attacks])]
    print("\n".join(lines))
    if not args.no_write:
        table.write_into(DOCS, "\n".join(lines))


main()
