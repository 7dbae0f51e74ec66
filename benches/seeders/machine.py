"""What the machine provides for a run: content, a network of its own, and accounts of CPU and memory.
Knows nothing of seeders."""

import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from torrents import make_content

IP = "198.18.0.1"
MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
CGROUPS = pathlib.Path("/sys/fs/cgroup")


def prepare(work):
    make_content(work / "data", work / "big", "big.bin", 1024 * MIB, MIB, 1)
    for n in range(1000):
        make_content(work / "data", work / "many", f"small-{n:04}.bin", 256 << 10, 64 << 10, 100 + n)


def warm(work, big):
    """Reads content into the page cache."""
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
        # Both ends of every connection are in here, with the same congestion control for all: not the
        # machine's, since BBR's timers cost more than serving.
        for self.congestion_control in ("cubic", "reno"):
            name = f"net.ipv4.tcp_congestion_control={self.congestion_control}"
            if subprocess.run(self.inside(["sysctl", "-qw", name]), stderr=subprocess.DEVNULL).returncode == 0:
                break

    def inside(self, command):
        return ["ip", "netns", "exec", self.name, *command]

    def remove(self):
        subprocess.run(["ip", "netns", "delete", self.name], check=False)


class Group:
    """A control group for a seeder and all that it starts, where the system lets us make one: it counts
    CPU to the nanosecond or microsecond. Otherwise /proc counts, in ticks of 10 ms."""

    def __init__(self):
        self.folder = None
        name = f"larder-bench-{os.getpid()}"
        for parent, file in ((CGROUPS / "cpuacct", "cpuacct.usage"), (CGROUPS, "cpu.stat"),
                             (CGROUPS / "unified", "cpu.stat")):
            try:
                (parent / name).mkdir(exist_ok=True)
                if (parent / name / file).exists():
                    self.folder, self.file = parent / name, file
                    return
                (parent / name).rmdir()
            except OSError:
                continue

    def enter(self):
        """For the process that is to become the seeder."""
        if self.folder:
            (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def cpu_seconds(self):
        if not self.folder:
            return None
        text = (self.folder / self.file).read_text()
        return int(text) / 1e9 if self.file == "cpuacct.usage" else int(text.split()[1]) / 1e6

    def remove(self):
        for _ in range(20):
            try:
                if self.folder:
                    self.folder.rmdir()
                return
            except OSError:
                time.sleep(0.1)


class Usage:
    """What a process and its children have used so far."""

    def __init__(self, root, group):
        self.cpu = self.anonymous = 0
        self.switches = {}
        todo = [root]
        for pid in todo:
            try:
                self.add(pid)
                for task in os.listdir(f"/proc/{pid}/task"):
                    todo += open(f"/proc/{pid}/task/{task}/children").read().split()
            except OSError:
                continue
        exact = group.cpu_seconds()
        self.cpu = self.cpu if exact is None else exact

    def switches_since(self, before):
        """Of the threads that there are; what ended meanwhile takes its count along."""
        return sum(count - before.switches.get(task, 0) for task, count in self.switches.items())

    def add(self, pid):
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        self.cpu += sum(int(f) for f in fields[11:15]) / TICKS
        for task in os.listdir(f"/proc/{pid}/task"):
            self.switches[task] = field(f"/proc/{pid}/task/{task}/status", "voluntary_ctxt_switches")
        self.anonymous += field(f"/proc/{pid}/status", "RssAnon") * 1024


def field(path, name):
    for line in open(path):
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise OSError(f"{path} has no {name}")


def machine_cpu_seconds():
    """Busy and all, of all processors."""
    ticks = [int(f) for f in open("/proc/stat").readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS, sum(ticks) / TICKS
