"""The benchmark's arithmetic: a wrong median or limit would misreport every program."""

from harness.case import InteropCase, quick
from race import limits, options
from race.report import times
from race.results import Results, Spread, percentile

SUBJECT, OTHER = "subject", "other"


class RaceFigureTests(InteropCase):
    @quick
    def test_percentiles_are_values_that_occurred(self) -> None:
        """By the nearest rank: of 1 to 100 the 99th percentile is 99."""
        values = [float(it) for it in range(100, 0, -1)]
        told = [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)]
        self.assertEqual(told, [1, 50, 99, 100])
        self.assertEqual(percentile([7.0], 0.99), 7)

    @quick
    def test_spreads_and_ratios(self) -> None:
        """Ratios are those of the turns if all have one; a divisor of zero gives no ratio."""
        subject = {"a": [3, 1, 2], "b": [1, 1, 1], "c": [6, 8]}
        results = self.results(subject, {"a": [4, 4, 100], "b": [0, 0, 1], "c": [1, 2, 3]})
        self.assertEqual(results.spread(SUBJECT, "a"), Spread(2, 1, 3))
        self.assertEqual(results.ratio(SUBJECT, OTHER, "a"), 0.25)
        self.assertEqual(results.ratio(SUBJECT, OTHER, "c"), 3.5)
        self.assertIsNone(results.ratio(SUBJECT, OTHER, "b"))
        self.assertIsNone(results.ratio(SUBJECT, OTHER, "none"))
        self.assertIsNone(results.ratio(OTHER, OTHER, "b"))
        self.assertEqual([times(it) for it in (0.0041, 1.3, 250)], ["x0.0041", "x1.30", "x250"])

    @quick
    def test_limits_hold_at_their_bound_and_not_beyond(self) -> None:
        """Each limit holds exactly at its bound and fails just past it."""
        reference = {"tcp1_up": [100], "cpu_both": [10], "rss": [9], "retransmits1": [10]}
        kept = {"tcp1_up": [130], "cpu_both": [7], "rss": [8], "retransmits1": [50]}
        broken = {"tcp1_up": [129], "cpu_both": [7.1], "rss": [8.1], "retransmits1": [51]}
        for figures, expected in ((kept, True), (broken, False)):
            judged = limits.check(self.results(figures, reference), SUBJECT, OTHER)
            self.assertEqual([is_kept for is_kept, _ in judged], [expected] * 4, judged)
        busy = self.results({"retransmits1": [200]}, {"retransmits1": [100]})
        self.assertEqual([it for it, _ in limits.check(busy, SUBJECT, OTHER)], [True])

    @quick
    def test_programs_are_given_by_name_and_command(self) -> None:
        """The interface's name is appended after -f, or replaces its placeholder."""
        path = self.settings.program.path
        first, second = options.parse_list(f"a={path} --x 'y z'; {path} --on {{}} --now")
        self.assertEqual(first.name, "a")
        self.assertEqual(first.command("wg0"), [str(path), "--x", "y z", "-f", "wg0"])
        self.assertEqual(second.name, path.name)
        self.assertEqual(second.command("wg0"), [str(path), "--on", "wg0", "--now"])
        self.assertRaises(ValueError, options.check_names, [first, first])
        self.assertRaises(FileNotFoundError, options.parse_program, "a=/no/such/program")

    def results(self, subject: dict, other: dict) -> Results:
        results = Results([SUBJECT, OTHER])
        results.values = {SUBJECT: subject, OTHER: other}
        return results
