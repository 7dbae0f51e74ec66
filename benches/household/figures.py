"""Figures from raw data: what arrived when, and how long each ping took. Knows no files and no clock.

Times are seconds, rates are bytes per second. A packet is (time, address, bytes, protocol) as the relay wrote it
down; a ping is (sent, round trip), with None for one that never came back.
"""

import bisect
import math
import statistics
import struct

ICMP, TCP = 1, 6
RECORD = struct.Struct("<Q4sHBx")
NANOSECOND = 1e-9

# Short enough to see a controller react within tens of milliseconds, long enough that 8 Mbit/s fill a window with
# 33 packets: one more or less is no news.
BIN = 0.01
WINDOW = 0.05
# A rate that is reached counts only if it holds for so long: one quiet window is chance.
HOLD = 0.25
# Full speed again is looked at over longer: a controller that probes the line swings by some percent.
RECOVERY_WINDOW = 0.5
# The queue is gone when, for so long, all but a twentieth of the pings are delayed by no more than so much. At
# 8 Mbit/s that is seven packets.
CALM_TIME = 0.5
CALM_DELAY = 0.010
# A ping that never came back is as bad as one that the household would have given up.
LOST_DELAY = 1.0


def packets(raw):
    """The relay's records; an unfinished one at the end is left."""
    whole = len(raw) - len(raw) % RECORD.size
    return [(time * NANOSECOND, address, size, protocol)
            for time, address, size, protocol in RECORD.iter_unpack(memoryview(raw)[:whole])]


def percentile(values, part):
    """Nearest rank: a value that occurred. None when there is none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def bins(arrivals, start, end, width=BIN):
    """Bytes by bin, of (time, bytes) in [start, end). A last bin that is not full is left out."""
    counts = [0] * max(0, math.floor((end - start) / width + 1e-6))
    for time, size in arrivals:
        at = math.floor((time - start) / width)
        if 0 <= at < len(counts):
            counts[at] += size
    return counts


def rates(counts, window, width=BIN):
    """Mean rate in each run of bins as long as the window; the n-th begins with the n-th bin."""
    n = round(window / width)
    sums, total = [], sum(counts[:n])
    for i in range(n, len(counts) + 1):
        sums.append(total / (n * width))
        if i < len(counts):
            total += counts[i] - counts[i - n]
    return sums


def mean_rate(arrivals, start, end):
    return sum(size for time, size in arrivals if start <= time < end) / (end - start)


def falls_to(arrivals, start, end, rate):
    """Seconds after `start` at which the rate is no more than this, and stays so. None: not before `end`.

    The moment is the end of the first window of which this is true, so the figure is late rather than early.
    """
    seen = [r <= rate for r in rates(bins(arrivals, start, end), WINDOW)]
    return _first_that_holds(seen, WINDOW, round(HOLD / BIN))


def rises_to(arrivals, start, end, rate):
    """Seconds after `start` at which the rate over the recovery window is at least this."""
    seen = [r >= rate for r in rates(bins(arrivals, start, end), RECOVERY_WINDOW)]
    return _first_that_holds(seen, RECOVERY_WINDOW, 1)


def _first_that_holds(seen, window, times):
    run = 0
    for i, yes in enumerate(seen):
        run = run + 1 if yes else 0
        if run == times:
            return (i - times + 1) * BIN + window
    return None


def added_delays(pings, base):
    return [LOST_DELAY if trip is None else trip - base for _, trip in pings]


def calm_after(pings, start, base):
    """Seconds after `start` from which pings are delayed no more. None: they still are at the end.

    A lost ping counts as delayed.
    """
    pings = [(sent, trip) for sent, trip in pings if sent >= start]
    times = [sent for sent, _ in pings]
    late = [0]
    for _, trip in pings:
        late.append(late[-1] + (trip is None or trip - base > CALM_DELAY))
    for i, sent in enumerate(times):
        end = bisect.bisect_left(times, sent + CALM_TIME)
        if end == len(times):
            return None
        if late[i + 1] == late[i] and late[end] - late[i] <= 0.05 * (end - i):
            return sent - start
    return None


class Spread:
    """Median, least and most over the runs. None in a run is worse than anything, and shown as such."""

    def __init__(self, values, worst):
        self.count = len(values)
        values = sorted(worst if v is None else v for v in values)
        self.median = statistics.median(values) if values else None
        self.least, self.most = (values[0], values[-1]) if values else (None, None)


def verdict(value, must, should, higher_is_better):
    """Which of the goals a figure meets."""
    meets = (lambda goal: value >= goal) if higher_is_better else (lambda goal: value <= goal)
    return "should" if meets(should) else "must" if meets(must) else "**missed**"
