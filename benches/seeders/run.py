"""One seeder in one scenario: starts it through its adapter, drives the load at it, reads what it used."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import scenarios
from machine import IP, Usage, machine_cpu_seconds, warm

HERE = pathlib.Path(__file__).resolve().parent
PORT, API = 6881, 6890
READY_SECONDS = 150
STOP_SECONDS = 10


class Failed(Exception):
    """The seeder did not do its part; the sentence says which."""


class Seeder:
    def __init__(self, name, scenario, work, namespace, group):
        self.name, self.namespace, self.group, self.process = name, namespace, group, None
        self.adapter = str(HERE / f"{name}.sh")
        self.work, self.state = work, work / "state"
        many = scenario == scenarios.IDLE
        self.torrents = work / ("many" if many else "big")
        limit = scenarios.LIMIT if scenario == scenarios.LIMITED else 0
        self.env = {**os.environ, "STATE": str(self.state), "DATA": str(work / "data"),
                    "TORRENTS": str(self.torrents), "COUNT": "1000" if many else "1", "IP": IP,
                    "PORT": str(PORT), "API": str(API), "RATE": str(limit),
                    "CONNS": str(scenarios.LOADS.get(scenario, {}).get("connections", 0)),
                    "HOME": str(self.state)}

    def clear(self):
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir()

    def verb(self, verb, fresh=True):
        command = self.namespace.inside(["bash", self.adapter, verb])
        env = {**self.env, "FRESH": "1" if fresh else "0"}
        return subprocess.run(command, env=env, text=True, capture_output=True, check=False)

    def must(self, verb):
        done = self.verb(verb)
        if done.returncode != 0:
            raise Failed(f"`{self.name}.sh {verb}` failed: {done.stderr.strip()[-300:]}")

    def version(self):
        """None: it is not here."""
        said = self.verb("version")
        text = (said.stdout or "").strip()
        return text.split("\n")[0].strip() if said.returncode == 0 and text else None

    def cannot(self, scenario):
        """A reason, if there is one."""
        said = self.verb(f"can-{scenario.split('-')[0]}")
        return said.stdout.strip() or "it cannot" if said.returncode == 3 else None

    def start(self, fresh):
        """Seconds until it seeds."""
        if fresh:
            self.must("prepare")
        began = time.monotonic()
        with open(self.state / "log", "a") as log:
            self.process = subprocess.Popen(
                self.namespace.inside(["bash", self.adapter, "start"]), stdin=subprocess.DEVNULL,
                env={**self.env, "FRESH": "1" if fresh else "0"}, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=self.group.enter)
        if fresh:
            self.must("add")
        while self.verb("ready", fresh).returncode != 0:
            if self.process.poll() is not None or time.monotonic() - began > READY_SECONDS:
                raise Failed(f"it does not seed after {time.monotonic() - began:.0f} s: {self.last_words()}")
            # Asking about 1000 torrents is work too.
            time.sleep(0.1 if time.monotonic() - began < 5 else 1)
        return time.monotonic() - began

    def last_words(self):
        lines = (self.state / "log").read_text(errors="replace").strip().split("\n")
        return lines[-1][-300:] or "it said nothing"

    def usage(self):
        return Usage(str(self.process.pid), self.group)

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.verb("stop")
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        except ProcessLookupError:
            self.process.wait()


def measure(seeder, scenario, program, quick):
    """What was measured, or why nothing was."""
    seeder.clear()
    why = seeder.cannot(scenario)
    if why:
        return {"skipped": why}
    try:
        if scenario == scenarios.IDLE:
            return idle(seeder, quick)
        return under_load(seeder, program, scenarios.load(scenario, quick))
    except Failed as failure:
        return {"failed": str(failure)}
    finally:
        seeder.stop()


def under_load(seeder, program, load):
    warm(seeder.work, big=True)
    seeder.start(fresh=True)
    time.sleep(1)
    arguments = ["--torrent", str(seeder.torrents / "big.bin.torrent"), "--target", f"{IP}:{PORT}",
                 "--source", "198.18.1.1"]
    for name, value in load.items():
        arguments += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    before, machine_before, most = seeder.usage(), machine_cpu_seconds(), 0
    with subprocess.Popen(seeder.namespace.inside([program, *arguments]), stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as running:
        try:
            while (done := os.wait4(running.pid, os.WNOHANG))[0] == 0:
                time.sleep(0.25)
                most = max(most, seeder.usage().anonymous)
        except BaseException:
            running.kill()
            raise
        after, machine_after = seeder.usage(), machine_cpu_seconds()
        running.returncode = os.waitstatus_to_exitcode(done[1])
        said = running.stdout.read()
    if running.returncode != 0:
        raise Failed("the load generator failed; see above")
    result = json.loads(said)
    if result["payload_bytes"] == 0:
        raise Failed(f"no peer got a byte: {seeder.last_words()}")
    cpu = after.cpu - before.cpu
    others = machine_after[0] - machine_before[0] - cpu - done[2].ru_utime - done[2].ru_stime
    result.update(
        cpu_seconds_per_gib=cpu / (result["payload_bytes"] / (1 << 30)), anonymous_bytes=most,
        switches_per_block=after.switches_since(before) / max(1, result["blocks"]),
        others_share=max(0.0, others / (machine_after[1] - machine_before[1])))
    return result


def idle(seeder, quick):
    warm(seeder.work, big=False)
    first = seeder.start(fresh=True)
    time.sleep(2)
    seeder.stop()
    again = seeder.start(fresh=False)
    time.sleep(5)
    seconds = scenarios.QUICK_IDLE_SECONDS if quick else scenarios.IDLE_SECONDS
    before = seeder.usage()
    time.sleep(seconds)
    after = seeder.usage()
    return dict(first_start_seconds=first, restart_seconds=again, anonymous_bytes=after.anonymous,
                cpu_percent=100 * (after.cpu - before.cpu) / seconds,
                wakeups_per_second=after.switches_since(before) / seconds)
