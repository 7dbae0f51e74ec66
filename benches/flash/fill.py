#!/usr/bin/env python3
"""What one filled gigabyte costs the flash: larderd's data folder on an ext4 of its own, and the kernel's count of
what reached its device, SQLite, journal and all.

    fill.py --programs target/release [--mebibytes 1024] [--rate BYTES_PER_SECOND]

Needs root, a loop device, mkfs.ext4 and room for twice the content. Prints bytes written per byte filled, and how
many bytes an average write had.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HUB = ("127.0.0.1", 7390)
URL = f"http://{HUB[0]}:{HUB[1]}/"
SECTOR_BYTES = 512  # /sys counts in these, whatever the device has
PATIENCE_SECONDS = 900
HUB_CONFIG = 'data_dir = "{folder}/hub"\nlisten = "{host}:{port}"\npublic_url = "{url}"\n' \
             "[policy]\nlist_interval_seconds = 1\n"
CONFIG = """
data_dir = "{mount}/data"
[hub]
url = "{url}"
root_file = "{folder}/hub/root.json"
claim_code = "{claim}"
[serve]
listen = ["127.0.0.1:7391"]
[fill]
ingress_bytes_per_second_max = {rate}
[cache]
reserve_bytes = 0
[admin]
listen = "127.0.0.1:7392"
"""


def run(*command, **more):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, **more).stdout


def wait_for(condition, what):
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {PATIENCE_SECONDS} s")
        time.sleep(0.2)


def written(device):
    """Writes and bytes that have reached the device."""
    fields = pathlib.Path(f"/sys/block/{pathlib.Path(device).name}/stat").read_text().split()
    return int(fields[4]), int(fields[6]) * SECTOR_BYTES


def contents(mount):
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(mount / "data" / "status.sock"))
            document = b""
            while more := connection.recv(1 << 16):
                document += more
        return json.loads(document)["cache"]["contents"]
    except (OSError, ValueError):
        return []


def measure(folder, mount, device, options):
    programs, started = options.programs, []
    environment = os.environ | {"LARDER_HUB_URL": URL, "LARDER_TOKEN_FILE": f"{folder}/hub/operator-token"}
    (folder / "hub.toml").write_text(HUB_CONFIG.format(folder=folder, host=HUB[0], port=HUB[1], url=URL))
    run(programs / "larder-hub", "init", "--config", folder / "hub.toml")

    def start(*command):
        log = open(folder / f"{command[0].name}.log", "w")
        started.append(subprocess.Popen([str(c) for c in command], stdout=log, stderr=log))

    try:
        start(programs / "larder-hub", "run", "--config", folder / "hub.toml")
        wait_for((folder / "hub" / "endpoints.json").exists, "the hub")
        claim = json.loads(run(programs / "larder", "node", "claim", "--json", env=environment))["claim_codes"][0]
        config = folder / "larderd.toml"
        config.write_text(CONFIG.format(folder=folder, mount=mount, url=URL, claim=claim, rate=options.rate))
        film = folder / "film.bin"
        with open(film, "wb") as file:
            for _ in range(options.mebibytes):
                file.write(os.urandom(1 << 20))
        run(programs / "larder", "publish", film, "--json", env=environment)
        film.unlink()
        run("sync", "--file-system", mount)
        before = written(device)
        start(programs / "larderd", "--config", config)
        wait_for(lambda: any(c["held_bytes"] == c["size_bytes"] for c in contents(mount)), "the fill")
        run("sync", "--file-system", mount)
        after = written(device)
    finally:
        for process in started[::-1]:
            process.terminate()
            process.wait()
    writes, bytes_written = after[0] - before[0], after[1] - before[1]
    return bytes_written / (options.mebibytes << 20), bytes_written // max(writes, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--rate", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="larder-flash-", dir="/var/tmp") as folder:
        folder = pathlib.Path(folder)
        image, mount = folder / "flash.img", folder / "flash"
        mount.mkdir()
        with open(image, "wb") as file:
            file.truncate((options.mebibytes * 5 // 4 + 256) << 20)
        # Nothing is left to do in the background, where it would be counted as the fill's.
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        device = run("losetup", "--find", "--show", image).strip()
        try:
            run("mount", device, mount)
            try:
                ratio, average = measure(folder, mount, device, options)
            finally:
                run("umount", mount)
        finally:
            run("losetup", "--detach", device)
    print(f"{ratio:.4f} bytes written per byte filled; {average // 1024} KiB a write")


if __name__ == "__main__":
    sys.exit(main())
