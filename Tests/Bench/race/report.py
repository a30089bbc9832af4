"""The results as a table and as JSON."""

import json
import pathlib
import re

from race.machine import Machine
from race.measures import ALL, OFFERED, Measure
from race.results import Results

NOTES = f"""Each figure is the median of all rounds, in parentheses the least and the greatest, then
the ratio to the reference (the median of the turns' ratios). Both ends of a tunnel run the same
program, in two network namespaces of one machine joined by a virtual cable; iperf3 and the two ends
share its processors. The programs take turns at each step of each round. Processor time is that of
the programs alone, by /proc/PID/stat. For UDP iperf3 is asked for {OFFERED:,} packets a second and
sends what the processors leave it, more than can pass. Pings are those of ping(8), beside one TCP
flow in the same direction where so said. For a handshake the initiator forgets its peer, is told it
again, and an echo request waits for the session. Resident memory is the greatest (VmHWM) of a
round. The time from start to the first answer holds the configuration by wg(8) and ip(8), which
takes alike with all programs. Of N peers one is real, and the others are keys and addresses that
nobody has; Culvert serves 1,000 in its profile `gateway`, the rest in `standard`.

Two hops are a tunnel inside a tunnel, measured beside a single tunnel in the same rounds: what is
left of its throughput is the median of the rounds' shares. With both ends nested, two processes
have both hops each. With two servers there are three namespaces: a client with both hops, a server
for the outer tunnel, whose kernel forwards what comes out of it, and a server for the inner one.
Culvert's client is one process; wireguard-go's is one for each hop, and the kernel routes the inner
one's datagrams into the outer one's interface. Everything shares this machine's processors, so four
ends cost throughput that they would not cost on machines of their own; processor time is that of
all programs of the arrangement together."""


def table(results: Results, reference: str) -> str:
    """Markdown: a line per figure, a column per program."""
    names = list(results.values)
    rows = [["", *names]]
    for measure in ALL:
        if results.has(measure.key):
            title = f"{measure.title}, {measure.unit}" if measure.unit else measure.title
            cells = [cell(results, name, reference, measure) for name in names]
            rows.append([title, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(names) + 1)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def cell(results: Results, name: str, reference: str, measure: Measure) -> str:
    """E.g. `612 (590-640) x1.30`; the reference itself has no ratio."""
    spread = results.spread(name, measure.key)
    if spread is None:
        return "-"
    low, middle, high = (
        f"{value:,.{measure.digits}f}" for value in (spread.least, spread.median, spread.greatest)
    )
    text = middle if low == high else f"{middle} ({low}-{high})"
    if measure.is_share or name == reference or reference not in results.values:
        return text
    ratio = results.ratio(name, reference, measure.key)
    return text if ratio is None else f"{text} {times(ratio)}"


def read(folder: pathlib.Path) -> tuple[Results, Machine, str]:
    """Read what `write` wrote: the results, the machine and the reference's name."""
    content = json.loads((folder / "latest.json").read_text())
    results = Results(list(content["values"]))
    results.values, results.notes = content["values"], list(map(tuple, content["notes"]))
    return results, Machine(content["machine"], content["programs"]), content["reference"]


def times(ratio: float) -> str:
    """E.g. x1.30; two significant digits below a tenth, no decimals above 100."""
    if ratio >= 100:
        return f"x{ratio:,.0f}"
    return f"x{ratio:.2f}" if ratio >= 0.1 else f"x{ratio:.2g}"


def markdown(results: Results, machine: Machine, reference: str, plots: list[str]) -> str:
    """The whole document."""
    parts = ["# Benchmark", machine.sentences(), table(results, reference)]
    parts.append(f"Ratios are to {reference}. {NOTES}")
    if results.notes:
        parts.append("\n".join(f"- {name}: {text}" for name, text in results.notes))
    parts += [f"![{name}]({name}.svg)" for name in plots]
    return "\n\n".join(parts) + "\n"


def write(
    folder: pathlib.Path, results: Results, machine: Machine, reference: str, plots: list[str]
) -> None:
    """Write latest.md and latest.json to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.md").write_text(markdown(results, machine, reference, plots))
    units = {it.key: it.unit for it in ALL if results.has(it.key)}
    content = {
        "machine": machine.facts,
        "programs": machine.programs,
        "reference": reference,
        "units": units,
        "values": results.values,
        "notes": results.notes,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # Put the values of a figure on one line.
    text = re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text)
    (folder / "latest.json").write_text(text + "\n")
