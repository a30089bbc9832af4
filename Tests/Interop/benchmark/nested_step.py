"""What two hops cost, measured beside a single tunnel."""

from harness.lab import Lab
from harness.program import Program

from .measures import WAYS
from .nests import ARRANGEMENTS, Nest
from .steps import GIGABYTE, Figures, cpu_seconds, run_tcp


class NestedRun:
    """One program's part of a round: its arrangements, which stand side by side, in turn."""

    def __init__(self, program: Program):
        self.program, self.lab = program, Lab()
        self.nests: dict[str, Nest] = {}
        self.megabits: dict[str, dict[str, float]] = {}  # by arrangement and way

    @property
    def possible(self) -> list[str]:
        """Only Culvert nests by itself, so only of it are there two that do."""
        return [it for it in ARRANGEMENTS if it != "twins" or self.program.is_culvert]

    def build(self, name: str) -> None:
        """Start it, with sessions in all its tunnels."""
        self.nests[name] = ARRANGEMENTS[name](self.lab, self.program)

    def tcp(self, name: str, seconds: float) -> Figures:
        """A flow each way, and what both together cost all processes of the arrangement."""
        nest = self.nests[name]
        begin = sum(map(cpu_seconds, nest.nodes))
        runs = {way: run_tcp(nest.pair, seconds, reverse=way == "down") for way in WAYS}
        spent = sum(map(cpu_seconds, nest.nodes)) - begin
        self.megabits[name] = {way: run.megabits for way, run in runs.items()}
        figures = {f"nested_{name}_{way}": it for way, it in self.megabits[name].items()}
        gigabytes = sum(run.bytes for run in runs.values()) / GIGABYTE
        return figures | {f"nested_{name}_cpu": spent / gigabytes}

    def shares(self) -> Figures:
        """What of the single tunnel's throughput is left, each way."""
        single = self.megabits.get("single", {})
        return {
            f"nested_{name}_{way}_share": megabits[way] / single[way]
            for name, megabits in self.megabits.items()
            for way in WAYS
            if name != "single" and single
        }
