"""How busy the machine is with what is not measured."""

import pathlib
import time

IDLE_FIELDS = (3, 4)  # of the first line of /proc/stat: idle, and waiting for a disk


def busy_percent(seconds: float) -> float:
    """The share of all processors' time that was not idle."""
    before = processor_times()
    time.sleep(seconds)
    spent = [later - earlier for earlier, later in zip(before, processor_times())]
    idle = sum(spent[field] for field in IDLE_FIELDS)
    return round(100 * (1 - idle / max(1, sum(spent))), 1)


def processor_times() -> list[int]:
    """Clock ticks of all processors by what they did; guests' are part of the user's already."""
    line = pathlib.Path("/proc/stat").read_text().partition("\n")[0]
    return [int(it) for it in line.split()[1:9]]
