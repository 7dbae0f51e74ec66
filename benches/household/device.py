"""The real larderd as the lab's device, and the strangers who want its content. Measures nothing."""

import json
import pathlib
import shutil
import socket
import subprocess
import sys

import lab

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from torrents import make_content

PORT, ADMIN_PORT = 6881, 6890
CONTENT_BYTES, PIECE_BYTES = 64 << 20, 256 << 10
# From 10 Gbit/s on there is no limit.
NO_LIMIT = 1_250_000_000
FIXED_PART = 0.9
# Enough for a peer to keep its share of any line busy over 20 ms and a full buffer.
REQUESTS_IN_FLIGHT = 32

CONFIG = """
data_dir = "{folder}/data"
[serve]
listen = ["{address}:{port}"]
{serve}
connections_max = 500
[cache]
quota_bytes = 1073741824
reserve_bytes = 0
[admin]
listen = "127.0.0.1:{admin_port}"
"""
LIMITS = {
    "unmanaged": f"egress_bytes_per_second_max = {NO_LIMIT}",
    "fixed": f"egress_bytes_per_second_max = {lab.UPLINK / 8 * FIXED_PART:.0f}",
    "auto": 'mode = "auto"',
}


def make(folder):
    """Peers ask for the same bytes again and again, so this is as good as much more."""
    data = folder / "content"
    torrent = make_content(data, folder / "torrents", "content.bin", CONTENT_BYTES, PIECE_BYTES, seed=1)
    return torrent, data


class Device:
    def __init__(self, home, program, mode, content, folder):
        self.home, self.program, self.folder = home, program, folder / "device"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        torrent, data = content
        self.config = self.folder / "larderd.toml"
        self.config.write_text(CONFIG.format(folder=self.folder, address=lab.DEVICE_LAN, port=PORT,
                                             serve=LIMITS[mode], admin_port=ADMIN_PORT))
        lab.run(str(program), "preload", "--config", str(self.config), "--torrents", str(torrent.parent),
                "--data", str(data))

    def start(self):
        with open(self.folder / "log", "w") as log:
            self.process = self.home.start([self.program, "--config", self.config], lab.DEVICE, stdout=log, stderr=log)
        lab.wait_for(self.serves, "larderd did not begin to serve")

    def serves(self):
        if self.process.poll() is not None:
            raise lab.LabError(f"larderd ended: see {self.folder}/log")
        try:
            return any(c["state"] == "serving" for c in self.status()["cache"]["contents"])
        except (OSError, ValueError):
            return False

    def status(self):
        """The document of the owner's page."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.folder / "data" / "status.sock"))
            document = b""
            while more := connection.recv(1 << 16):
                document += more
        return json.loads(document)


class Peers:
    """Honest ones that want everything, each from an address of its own."""

    def __init__(self, home, program, torrent, count, seconds):
        self.process = home.start(
            [program, "--torrent", torrent, "--target", f"{lab.DEVICE_LAN}:{PORT}", "--connections", count,
             "--depth", REQUESTS_IN_FLIGHT, "--seconds", seconds, "--source", lab.FIRST_PEER],
            lab.WAN, stdout=subprocess.PIPE, text=True)

    def check(self):
        if self.process.poll() is not None:
            raise lab.LabError("the peers left before the run was over")
