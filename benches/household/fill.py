#!/usr/bin/env python3
"""What a household's download keeps while larderd, on the home's router, fills from the operator's web seed.

    fill.py --programs target/release [--seconds 10] [--rounds 2]

Needs what bench.py needs (see README.md), and `larder` and `larder-hub` beside `larderd`. A round is the
household's download alone, then the same next to a fill, once with `fill.yields_to_household` and once without.
Figures are parts of what the household has alone in the same round.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import lab

HUB_PORT = 7070
HUB_URL = f"http://{lab.WAN_ADDRESS}:{HUB_PORT}/"
CONTENT_BYTES = 96 << 20
DOWNLINK = 20e6  # bits per second; a fill that is alone on it takes it all
# The fill is at full speed before the household begins.
HEAD_START_SECONDS = 4

HUB_CONFIG = """
data_dir = "{folder}/hub"
listen = "{address}:{port}"
public_url = "{url}"
[policy]
list_interval_seconds = 1
"""
CONFIG = """
data_dir = "{folder}/data"
[hub]
url = "{url}"
root_file = "{folder}/hub/root.json"
claim_code = "{claim}"
[serve]
listen = ["{router}:6881"]
[fill]
yields_to_household = {yields}
[admin]
listen = "127.0.0.1:6890"
"""


def counter(home, interface, name):
    path = f"/sys/class/net/{interface}/statistics/{name}"
    return int(subprocess.check_output(home.inside(lab.ROUTER, "cat", path)))


class Meter:
    """Bytes a second that the router has handed to the house, and that came in over the line."""

    def __init__(self, home):
        self.home = home
        self.began, self.house, self.line = self.read()

    def read(self):
        return (time.monotonic(), counter(self.home, lab.HOUSE, "tx_bytes"), counter(self.home, "wan0", "rx_bytes"))

    def rates(self):
        now, house, line = self.read()
        seconds = now - self.began
        return (house - self.house) / seconds, (line - self.line) / seconds


class Operator:
    def __init__(self, home, programs, folder):
        self.home, self.programs, self.folder = home, programs, folder
        config = folder / "hub.toml"
        config.write_text(HUB_CONFIG.format(folder=folder, address=lab.WAN_ADDRESS, port=HUB_PORT, url=HUB_URL))
        hub = programs / "larder-hub"
        lab.run(str(hub), "init", "--config", str(config))
        log = open(folder / "hub.log", "w")
        home.start([hub, "run", "--config", config], lab.WAN, stdout=log, stderr=log)
        lab.wait_for((folder / "hub" / "endpoints.json").exists, "the hub did not start")

    def larder(self, *arguments):
        environment = ["env", f"LARDER_HUB_URL={HUB_URL}", f"LARDER_TOKEN_FILE={self.folder}/hub/operator-token"]
        return json.loads(lab.run(*self.home.inside(lab.WAN, *environment, str(self.programs / "larder"), *arguments)))


def download(home, seconds):
    """What the house and the line received a second, from one second after its begin."""
    process = home.traffic(lab.HOUSE, "download", lab.WAN_ADDRESS, str(seconds))
    time.sleep(1)
    meter = Meter(home)
    time.sleep(seconds - 1.5)
    rates = meter.rates()
    process.wait()
    home.stop(process)
    return rates


def play(home, programs, folder, yields, seconds):
    operator = Operator(home, programs, folder)
    server = home.traffic(lab.WAN, "serve", lab.WAN_ADDRESS)
    server.stdout.readline()
    alone, line = download(home, seconds)
    claim = operator.larder("node", "claim", "--json")["claim_codes"][0]
    config = folder / "larderd.toml"
    config.write_text(CONFIG.format(folder=folder, url=HUB_URL, claim=claim, router=lab.ROUTER_LAN,
                                    yields="true" if yields else "false"))
    log = open(folder / "larderd.log", "w")
    home.start([programs / "larderd", "--config", config], lab.ROUTER, stdout=log, stderr=log)
    film = folder / "film.bin"
    film.write_bytes(os.urandom(CONTENT_BYTES))
    operator.larder("publish", str(film), "--json")
    started = Meter(home)
    lab.wait_for(lambda: counter(home, "wan0", "rx_bytes") - started.line > 4 << 20, "the fill did not begin")
    time.sleep(HEAD_START_SECONDS - 1)
    meter = Meter(home)
    time.sleep(1)
    fill_before = meter.rates()[1]
    beside, line_beside = download(home, seconds)
    # A stream that ended is no longer in the way: three seconds of quiet, then it grows again.
    time.sleep(8)
    meter = Meter(home)
    time.sleep(2)
    return {
        "household_alone": alone / line, "household": beside / alone, "fill_before": fill_before / line,
        "fill_beside": (line_beside - beside) / line, "fill_after": meter.rates()[1] / line,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    lab.Lab.relay = options.programs / "examples" / "delay_relay"
    lab.DOWNLINK = DOWNLINK
    lab.remove_leftovers()
    for number in range(1, options.rounds + 1):
        for yields in (True, False):
            with tempfile.TemporaryDirectory(prefix="larder-fill-") as folder:
                folder = pathlib.Path(folder)
                with lab.Lab(folder) as home:
                    figures = play(home, options.programs, folder, yields, options.seconds)
            parts = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"round {number}, {'yields' if yields else 'takes its share'}: {parts}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
