"""A home behind an uplink, in network namespaces. Makes it, runs programs in it, removes it; measures nothing.

    house  192.168.77.20 --+
                           +-- br-lan, router, wan0 ====== relay ====== wan0, wan 11.22.33.2
    device 192.168.77.10 --+           uplink's     10 ms each way      downlink's
                                       FIFO and rate                    FIFO and rate

The relay (examples/delay_relay.rs) sits behind the uplink's queue: what it writes down is what arrived, and when.
Peers have addresses of their own in 198.18.0.0/15, which is routed to the WAN. There is no NAT.
"""

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import pathlib
import re
import signal
import struct
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
PREFIX = "larder-home"
ROUTER, DEVICE, HOUSE, WAN = "router", "device", "house", "wan"
ROUTER_LAN, DEVICE_LAN, HOUSE_LAN = "192.168.77.1", "192.168.77.10", "192.168.77.20"
# Neither private nor for documentation: programs treat those as no internet.
ROUTER_WAN, WAN_ADDRESS = "11.22.33.1", "11.22.33.2"
PEERS, FIRST_PEER = "198.18.0.0/15", "198.18.1.1"

UPLINK, UPLINK_NARROW, DOWNLINK = 20e6, 8e6, 100e6  # bits per second
UPLINK_BUFFER, DOWNLINK_BUFFER = "300ms", "50ms"
ONE_WAY_MICROSECONDS = 10_000

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
ALLOWED = pathlib.Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
# Above everything that is measured: the line and the household's clock must not wait for the seeder's turn.
REALTIME_PRIORITY = 20
PATIENCE_SECONDS = 10


class LabError(Exception):
    pass


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def wait_for(condition, what, seconds=PATIENCE_SECONDS):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def remove_leftovers():
    """Of benches that were killed before they could: their number is no process any more."""
    for name in re.findall(rf"^{PREFIX}-(?:\w+)-\d+", run("ip", "netns", "list"), re.MULTILINE):
        owner = int(name.rsplit("-", 1)[1])
        if not pathlib.Path(f"/proc/{owner}").exists():
            run("ip", "netns", "delete", name)


@contextlib.contextmanager
def cubic_allowed():
    """A namespace may choose only among what the machine allows to all; a machine that prefers another does not
    always allow Linux's default. Put back at once: the namespace keeps its choice."""
    was = ALLOWED.read_text()
    try:
        if "cubic" not in was.split():
            ALLOWED.write_text(f"{was.strip()} cubic")
        yield
    finally:
        if "cubic" not in was.split():
            ALLOWED.write_text(was)


def open_tun(name):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def tbf(rate, buffer):
    return ["root", "tbf", "rate", f"{rate:.0f}bit", "burst", "3k", "latency", buffer]


class Lab:
    """Use as a context: what it made and started is gone afterwards, whatever happens."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.log_up, self.log_down = folder / "up.packets", folder / "down.packets"

    def __enter__(self):
        try:
            self.make_namespaces()
            self.make_lan()
            self.make_wan()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # The devices first: the relay ends, its log complete, when they go.
        for process in self.processes[::-1]:
            self.stop(process)
        for where in (ROUTER, DEVICE, HOUSE, WAN):
            subprocess.run(["ip", "netns", "delete", self.namespace(where)], stderr=subprocess.DEVNULL)

    def namespace(self, where):
        return f"{PREFIX}-{where}-{os.getpid()}"

    def ip(self, where, *command):
        run("ip", "-n", self.namespace(where), *command)

    def inside(self, where, *command):
        return ["ip", "netns", "exec", self.namespace(where), *command]

    def make_namespaces(self):
        for where in (ROUTER, DEVICE, HOUSE, WAN):
            run("ip", "netns", "add", self.namespace(where))
            settings = ["net.ipv6.conf.all.disable_ipv6=1",
                        # A run must not start with what the one before learnt about the way.
                        "net.ipv4.tcp_no_metrics_save=1"]
            if where in (ROUTER, WAN):
                settings.append("net.ipv4.ip_forward=1")
            run(*self.inside(where, "sysctl", "-qw", *settings))
            with cubic_allowed():
                run(*self.inside(where, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=cubic"))
            self.ip(where, "link", "set", "lo", "up")

    def make_lan(self):
        self.ip(ROUTER, "link", "add", "br-lan", "type", "bridge")
        for where, address in ((DEVICE, DEVICE_LAN), (HOUSE, HOUSE_LAN)):
            self.ip(ROUTER, "link", "add", where, "type", "veth", "peer", "eth0", "netns", self.namespace(where))
            self.ip(ROUTER, "link", "set", where, "master", "br-lan", "up")
            self.ip(where, "link", "set", "eth0", "up")
            self.ip(where, "address", "add", f"{address}/24", "dev", "eth0")
            self.ip(where, "route", "add", "default", "via", ROUTER_LAN)
        self.ip(ROUTER, "address", "add", f"{ROUTER_LAN}/24", "dev", "br-lan")
        self.ip(ROUTER, "link", "set", "br-lan", "up")

    def make_wan(self):
        with contextlib.ExitStack() as stack:
            tuns = []
            for where, address in ((ROUTER, ROUTER_WAN), (WAN, WAN_ADDRESS)):
                name = f"lh{os.getpid()}{where[0]}"
                tuns.append(open_tun(name))
                stack.callback(os.close, tuns[-1])
                run("ip", "link", "set", name, "netns", self.namespace(where), "name", "wan0")
                self.ip(where, "address", "add", f"{address}/24", "dev", "wan0")
                self.ip(where, "link", "set", "wan0", "up")
            self.ip(ROUTER, "route", "add", "default", "via", WAN_ADDRESS)
            self.ip(WAN, "route", "add", "192.168.77.0/24", "via", ROUTER_WAN)
            self.ip(WAN, "route", "add", "local", PEERS, "dev", "lo")
            self.shape(ROUTER, tbf(UPLINK, UPLINK_BUFFER), "add")
            self.shape(WAN, tbf(DOWNLINK, DOWNLINK_BUFFER), "add")
            command = [self.relay, str(ONE_WAY_MICROSECONDS), str(self.log_up), str(self.log_down)]
            self.start(command, stdin=tuns[0], stdout=tuns[1], realtime=True)

    # Set once by the program, as it knows where cargo builds.
    relay = None

    def shape(self, where, qdisc, verb="change"):
        run("tc", "-n", self.namespace(where), "qdisc", verb, "dev", "wan0", *qdisc)

    def set_uplink(self, rate):
        """When it was done, in seconds since 1970."""
        self.shape(ROUTER, tbf(rate, UPLINK_BUFFER))
        return time.time()

    def start(self, command, where=None, realtime=False, **more):
        """`ip netns exec` becomes the program, so the process is the program's own."""
        command = self.inside(where, *command) if where else command

        def prepare():
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if realtime:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))

        more.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen([str(c) for c in command], preexec_fn=prepare, start_new_session=True, **more)
        self.processes.append(process)
        return process

    def traffic(self, where, *arguments, **more):
        """One of traffic.py's verbs."""
        return self.start([str(HERE / "traffic.py"), *arguments], where, stdout=subprocess.PIPE, text=True, **more)

    def stop(self, process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        self.processes.remove(process)


def as_bytes(address):
    return ipaddress.ip_address(address).packed
