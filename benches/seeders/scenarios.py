"""What is measured, and what Larder's engine is to reach in it. Measures nothing itself."""

MIB = 1 << 20
LIMITED, IDLE = "s4", "s5-1000"
LIMIT = 10 * MIB

# Arguments of examples/load.rs. CPU per GiB settles within seconds; a limit has to hold for longer.
LOADS = {
    "s1": dict(connections=1, depth=250, seconds=6, bytes_max=1024 * MIB, sequential=True),
    "s2": dict(connections=50, depth=32, seconds=5),
    "s3": dict(connections=200, depth=32, seconds=5),
    "s6": dict(connections=200, depth=16, seconds=14, warmup=4, blocks_per_second=10),
    LIMITED: dict(connections=20, depth=16, seconds=24, warmup=4),
}
SCENARIOS = [*LOADS, IDLE]
# What cannot differ from run to run needs no second one.
ROUNDS_MAX = {IDLE: 1}
IDLE_SECONDS = 15
# Quick runs show that everything works, and little else.
QUICK_SECONDS = {"s1": 2, "s2": 2, "s3": 2, "s6": 3, LIMITED: 8}
QUICK_IDLE_SECONDS = 3
# For the forecast: starting and stopping a seeder with 1 GiB to check, or with 1000 torrents, twice.
START_SECONDS = {IDLE: 45}
START_SECONDS_USUAL = 6


def load(scenario, quick):
    """Arguments for a load; the warm-up shrinks with the time."""
    arguments = dict(LOADS[scenario])
    if quick:
        whole, arguments["seconds"] = arguments["seconds"], QUICK_SECONDS[scenario]
        if "warmup" in arguments:
            arguments["warmup"] = arguments["warmup"] * arguments["seconds"] // whole
    return arguments


def forecast_seconds(scenario, quick):
    if scenario == IDLE:
        length = QUICK_IDLE_SECONDS if quick else IDLE_SECONDS
    else:
        length = load(scenario, quick)["seconds"]
    return length + START_SECONDS.get(scenario, START_SECONDS_USUAL)


class Goal:
    """Must and should are in the row's unit; `floor` is what the floor took on the machine on which
    these goals were set, where it has one."""

    def __init__(self, must, should, floor=None, at_least=False):
        self.must, self.should, self.floor, self.at_least = must, should, floor, at_least

    def verdict(self, value, scale=1.0):
        if value is None:
            return "–"
        for name, goal in (("should", self.should), ("must", self.must)):
            if value >= goal * scale if self.at_least else value <= goal * scale:
                return name
        return f"**missed** ({value / (self.must * scale):.2f} ×)"


class Row:
    def __init__(self, what, scenario, key, text, unit=1.0, goal=None, of_floor=False):
        self.what, self.scenario, self.key, self.text = what, scenario, key, text
        self.unit, self.goal, self.of_floor = unit, goal, of_floor


def cpu(scenario, must, should, floor=None):
    goal = Goal(must, should, floor)
    return Row(f"{scenario}: CPU s/GiB", scenario, "cpu_seconds_per_gib", "{:.3f}", goal=goal, of_floor=True)


ROWS = [
    cpu("s1", 0.20, 0.12, 0.093),
    cpu("s2", 0.22, 0.16, 0.137),
    cpu("s3", 0.24, 0.17, 0.152),
    cpu("s6", 0.85, 0.65, 0.57),
    cpu(LIMITED, 0.55, 0.35),
    Row("s4: mean, of the limit", LIMITED, "bytes_per_second", "{:.3f}", LIMIT),
    Row("s4: worst 1-s window, of the limit", LIMITED, "window_1_s_max_bytes_per_second", "{:.3f}", LIMIT,
        Goal(1.02, 1.005)),
    Row("s4: worst 100-ms window, of the limit", LIMITED, "window_100_ms_max_bytes_per_second", "{:.2f}", LIMIT,
        Goal(1.15, 1.05)),
    Row("s4: first block, p50, s", LIMITED, "first_block_seconds_p50", "{:.2f}", goal=Goal(0.3, 0.1)),
    Row("s2: Jain index", "s2", "jain", "{:.3f}", goal=Goal(0.99, 0.995, at_least=True)),
    Row("s3: anonymous memory, MiB", "s3", "anonymous_bytes", "{:.1f}", MIB, Goal(12, 5)),
    Row("s3: context switches a block", "s3", "switches_per_block", "{:.2f}"),
    Row("s6: context switches a block", "s6", "switches_per_block", "{:.2f}"),
    Row("1000 contents, idle: anonymous memory, MiB", IDLE, "anonymous_bytes", "{:.1f}", MIB, Goal(16, 6)),
    Row("1000 contents, idle: CPU, %", IDLE, "cpu_percent", "{:.3f}", goal=Goal(0.1, 0.02)),
    Row("1000 contents, idle: wake-ups a second", IDLE, "wakeups_per_second", "{:.1f}", goal=Goal(5, 1)),
    Row("1000 contents: restart, s", IDLE, "restart_seconds", "{:.1f}"),
]
