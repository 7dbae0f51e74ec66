"""python3 -m unittest discover -s benches/household"""

import math
import struct
import unittest

import figures
from figures import BIN, CALM_DELAY, Spread, TCP, WINDOW


def steady(start, end, rate, step=0.001):
    """Packets that arrive at a rate, in the middle of each step."""
    count = round((end - start) / step)
    return [(start + (i + 0.5) * step, rate * step) for i in range(count)]


def pings(start, end, trip, interval=0.02):
    return [(start + i * interval, trip) for i in range(round((end - start) / interval))]


class Records(unittest.TestCase):
    def test_reads_what_the_relay_writes_and_leaves_an_unfinished_record(self):
        raw = struct.pack("<Q4sHBx", 1_500_000_000, bytes([192, 168, 77, 10]), 1500, TCP)
        self.assertEqual(figures.packets(raw + raw[:7]), [(1.5, bytes([192, 168, 77, 10]), 1500, TCP)])


class Percentiles(unittest.TestCase):
    def test_is_a_value_that_occurred(self):
        self.assertEqual(figures.percentile([4, 1, 3, 2], 0.5), 2)
        self.assertEqual(figures.percentile(range(1, 101), 0.95), 95)
        self.assertEqual(figures.percentile(range(1, 101), 0.99), 99)
        self.assertEqual(figures.percentile([7], 0.99), 7)

    def test_of_nothing_is_nothing(self):
        self.assertIsNone(figures.percentile([], 0.5))

    def test_a_lost_ping_is_among_the_slowest(self):
        delays = figures.added_delays([(0, 0.021), (1, None), (2, 0.020)], 0.020)
        self.assertEqual(figures.percentile(delays, 0.99), figures.LOST_DELAY)


class Bins(unittest.TestCase):
    def test_counts_each_byte_once_and_only_inside(self):
        arrivals = [(0.999, 1), (1.0, 10), (1.0099, 100), (1.01, 1000), (1.0299, 5), (1.03, 10_000)]
        self.assertEqual(figures.bins(arrivals, 1.0, 1.03), [110, 1000, 5])

    def test_leaves_a_last_bin_that_is_not_full(self):
        self.assertEqual(len(figures.bins([], 0, 0.035)), 3)

    def test_rates_are_means_over_each_window(self):
        self.assertEqual([round(r) for r in figures.rates([10, 20, 30, 40], 0.02)], [1500, 2500, 3500])

    def test_mean_rate_is_bytes_over_time(self):
        self.assertAlmostEqual(figures.mean_rate(steady(0, 2, 1000), 0.5, 1.5), 1000, delta=1)


class Falling(unittest.TestCase):
    def test_finds_the_moment_of_a_fall_a_window_late(self):
        arrivals = steady(0, 1, 1000) + steady(1, 2, 100)
        self.assertAlmostEqual(figures.falls_to(arrivals, 0, 2, 500), 1 + WINDOW, delta=0.03)

    def test_a_gap_that_does_not_last_is_no_fall(self):
        arrivals = steady(0, 0.5, 1000) + steady(0.6, 1.5, 1000) + steady(1.5, 2, 10)
        self.assertAlmostEqual(figures.falls_to(arrivals, 0, 2, 500), 1.5 + WINDOW, delta=0.03)

    def test_below_from_the_beginning_takes_one_window(self):
        self.assertAlmostEqual(figures.falls_to([], 5, 6, 500), WINDOW)

    def test_never_is_none(self):
        self.assertIsNone(figures.falls_to(steady(0, 2, 1000), 0, 2, 500))


class Rising(unittest.TestCase):
    def test_needs_the_mean_of_half_a_second(self):
        arrivals = steady(0, 1, 100) + steady(1, 3, 1000)
        # 100 and 1000 mix to 900 when eight ninths of the window are fast.
        self.assertAlmostEqual(figures.rises_to(arrivals, 0, 3, 900), 1 + 0.5 * 8 / 9, delta=2 * BIN)

    def test_never_is_none(self):
        self.assertIsNone(figures.rises_to(steady(0, 3, 100), 0, 3, 900))


class Calm(unittest.TestCase):
    BASE = 0.020

    def test_begins_with_the_first_ping_that_is_on_time_for_good(self):
        late = self.BASE + CALM_DELAY + 0.001
        seen = pings(0, 1, late) + pings(1, 3, self.BASE)
        self.assertAlmostEqual(figures.calm_after(seen, 0, self.BASE), 1.0, delta=0.021)

    def test_one_late_ping_in_twenty_is_calm_and_two_are_not(self):
        late = self.BASE + 2 * CALM_DELAY
        once = [(sent, late if i == 10 else self.BASE) for i, (sent, _) in enumerate(pings(0, 2, 0))]
        twice = [(sent, late if i in (10, 12) else self.BASE) for i, (sent, _) in enumerate(pings(0, 2, 0))]
        self.assertEqual(figures.calm_after(once, 0, self.BASE), 0)
        self.assertGreater(figures.calm_after(twice, 0, self.BASE), 0.1)

    def test_lost_pings_are_late(self):
        seen = [(sent, None) for sent, _ in pings(0, 1, 0)] + pings(1, 3, self.BASE)
        self.assertAlmostEqual(figures.calm_after(seen, 0, self.BASE), 1.0, delta=0.021)

    def test_never_is_none(self):
        self.assertIsNone(figures.calm_after(pings(0, 3, 0.3), 0, self.BASE))


class Runs(unittest.TestCase):
    def test_median_least_and_most(self):
        spread = Spread([3, 1, 2], math.inf)
        self.assertEqual((spread.median, spread.least, spread.most, spread.count), (2, 1, 3, 3))

    def test_what_was_never_seen_is_the_worst(self):
        self.assertEqual(Spread([None, 1, 2], math.inf).most, math.inf)
        self.assertEqual(Spread([None, None, 2], -math.inf).median, -math.inf)

    def test_of_no_run_is_nothing(self):
        self.assertIsNone(Spread([], math.inf).median)

    def test_verdict_names_the_best_goal_that_is_met(self):
        for value, said in ((2.5, "should"), (2.6, "must"), (5, "must"), (5.1, "**missed**"), (math.inf, "**missed**")):
            self.assertEqual(figures.verdict(value, 5, 2.5, False), said)
        for value, said in ((0.985, "should"), (0.98, "must"), (0.9, "**missed**")):
            self.assertEqual(figures.verdict(value, 0.97, 0.985, True), said)


if __name__ == "__main__":
    unittest.main()
