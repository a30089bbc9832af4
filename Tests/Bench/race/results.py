"""The figures of all rounds."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of some values."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of the values does not exceed."""
    ordered = sorted(values)
    rank = -(-share * len(ordered) // 1)  # rounded up
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


def rounded(value: float) -> float:
    """Round to six significant digits."""
    return float(f"{value:.6g}")


class Results:
    """The values of all rounds by program and figure, and the failures."""

    def __init__(self, names: list[str]):
        self.values: dict[str, dict[str, list[float]]] = {name: {} for name in names}
        self.notes: list[tuple[str, str]] = []  # (program, what happened)
        self.busy: list[float] = []  # percent of the processors; load by others before each round

    def add(self, name: str, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            self.values[name].setdefault(key, []).append(rounded(value))

    def note(self, name: str, text: str) -> None:
        if (name, text) not in self.notes:
            self.notes.append((name, text))

    def spread(self, name: str, key: str) -> Spread | None:
        values = self.values[name].get(key)
        return Spread.of(values) if values else None

    def ratio(self, name: str, reference: str, key: str) -> float | None:
        """The median of the ratios of each value to the reference's value of the same turn.

        Other load on the machine, which changes from round to round, then affects both. If a turn
        is missing, it is the ratio of the medians; None if the reference's median is 0.
        """
        own, other = self.values[name].get(key, []), self.values[reference].get(key, [])
        if not own or not other or not statistics.median(other):
            return None
        if len(own) != len(other):
            own, other = [statistics.median(own)], [statistics.median(other)]
        ratios = [value / divisor for value, divisor in zip(own, other) if divisor]
        return statistics.median(ratios) if ratios else None

    def has(self, key: str) -> bool:
        return any(key in figures for figures in self.values.values())
