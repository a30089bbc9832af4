"""The machine and the programs that were measured."""

import argparse
import dataclasses
import datetime
import hashlib
import os
import pathlib
import re
import subprocess
import time

from harness.settings import Program
from race.options import version as version_of
from race.results import Results, Spread


@dataclasses.dataclass(frozen=True)
class Machine:
    """Facts about the machine and each program, which a reader needs to judge the figures."""

    facts: dict
    programs: dict[str, dict]

    @classmethod
    def look(cls, options: argparse.Namespace, results: Results) -> "Machine":
        """This machine in its current state."""
        congestion = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
        facts = {
            "date": datetime.date.today().isoformat(),
            "processor": processor(),
            "processors": os.cpu_count(),
            "kernel": os.uname().release,
            "congestion control": congestion,
            "iperf3": first_line("iperf3", "--version"),
            "rounds": options.rounds,
            "seconds of each run": options.seconds,
            "busy otherwise, %": results.busy,
        }
        return cls(facts, {it.name: describe(it) for it in options.programs})

    def sentences(self) -> str:
        facts = self.facts
        text = (
            f"Measured on {facts['date']}: {facts['processors']} processors {facts['processor']}, "
            f"Linux {facts['kernel']}, TCP congestion control {facts['congestion control']}, "
            f"{facts['iperf3']}; {facts['rounds']} rounds, {facts['seconds of each run']:g} s each "
            "run."
        )
        if facts["busy otherwise, %"]:
            busy = Spread.of(facts["busy otherwise, %"])
            text += (
                f" Before each round other work kept {busy.median:.0f} % of the processors busy, "
                f"at most {busy.greatest:.0f} %."
            )
        text += "\n"
        for name, program in self.programs.items():
            text += f"\n- {name}: {program['version']}, {program['bytes']:,} bytes"
        return text


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found[1] if found else os.uname().machine


def first_line(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.partition("\n")[0].partition(" (")[0]


def describe(program: Program) -> dict:
    """The build of a program."""
    content = program.path.read_bytes()
    return {
        "version": version_of(program),
        "bytes": len(content),
        "SHA-256": hashlib.sha256(content).hexdigest()[:16],
    }


# How busy the machine is with other work.

IDLE_FIELDS = (3, 4)  # of the first line of /proc/stat: idle, and waiting for a disk


def busy_percent(seconds: float) -> float:
    """The share of all processors' time that was not idle."""
    before = processor_times()
    time.sleep(seconds)
    spent = [later - earlier for earlier, later in zip(before, processor_times())]
    idle = sum(spent[field] for field in IDLE_FIELDS)
    return round(100 * (1 - idle / max(1, sum(spent))), 1)


def processor_times() -> list[int]:
    """Clock ticks of all processors by state; the time of guests is included in user time."""
    line = pathlib.Path("/proc/stat").read_text().partition("\n")[0]
    return [int(it) for it in line.split()[1:9]]
