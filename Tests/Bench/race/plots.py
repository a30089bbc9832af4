"""The results as SVG charts; the same figures give the same bytes."""

import math
import os
import pathlib

from harness.settings import REPOSITORY
from race.measures import BY_KEY
from race.results import Results, Spread

SUBJECT, REFERENCES = "#0b7285", ("#ced4da", "#868e96", "#e69f00", "#cc79a7", "#56b4e9")
INK, GRID = "#343a40", "#e9ecef"
WIDTH, HEIGHT, SHARE = 8.0, 3.6, 0.8  # inches; the share of each group that bars fill
SETTINGS = {
    "svg.hashsalt": "culvert",  # the same identifiers in every run
    "svg.fonttype": "none",  # text, not paths
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
# File name, title, axis, whether the axis is logarithmic, and the label of each figure's bars.
CHARTS = (
    (
        "throughput",
        "TCP throughput (more is better)",
        "Mbit/s",
        False,
        {
            "tcp1_up": "1 flow,\nfrom the initiator",
            "tcp1_down": "1 flow,\nto the initiator",
            "tcp4_up": "4 flows,\nfrom the initiator",
            "tcp4_down": "4 flows,\nto the initiator",
        },
    ),
    (
        "cpu",
        "Processor time for 1 GB of TCP (less is better)",
        "seconds per GB",
        False,
        {"cpu_send": "sending end", "cpu_receive": "receiving end", "cpu_both": "both ends"},
    ),
    (
        "nested",
        "TCP throughput of one tunnel and of two hops, 1 flow (more is better)",
        "Mbit/s",
        False,
        {
            "nested_single_up": "one tunnel,\nup",
            "nested_single_down": "one tunnel,\ndown",
            "nested_twins_up": "both ends\nnested, up",
            "nested_twins_down": "both ends\nnested, down",
            "nested_chain_up": "two servers,\nup",
            "nested_chain_down": "two servers,\ndown",
        },
    ),
    (
        "packets",
        "UDP packets received when offered too many (more is better)",
        "packets/s",
        False,
        {"udp1200_rate": "1200 bytes each", "udp200_rate": "200 bytes each"},
    ),
    (
        "memory",
        "Peak resident memory (less is better)",
        "MB",
        True,
        {"rss": "one peer, under load", "peers1000_rss": "1000 peers, TCP"},
    ),
    (
        "ping",
        "Round trip (less is better)",
        "ms",
        True,
        {
            "ping_idle_median": "idle,\nmedian",
            "ping_idle_p99": "idle,\n99th percentile",
            "ping_load_median": "beside TCP,\nmedian",
            "ping_load_p99": "beside TCP,\n99th percentile",
        },
    ),
)


def draw(folder: pathlib.Path, results: Results) -> tuple[list[str], str]:
    """Write an SVG for each chart that has figures; return their names, or why there are none."""
    os.environ.setdefault("MPLCONFIGDIR", str(REPOSITORY / "build" / "matplotlib"))
    try:
        import matplotlib
    except ImportError:
        return [], "No plots: python3-matplotlib is missing (apt-get install python3-matplotlib)."
    matplotlib.use("svg")
    matplotlib.rcParams.update(SETTINGS)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, title, axis, is_logarithmic, groups in CHARTS:
        groups = {key: label for key, label in groups.items() if results.has(key)}
        if groups:
            draw_chart(folder / f"{name}.svg", title, axis, is_logarithmic, groups, results)
            drawn.append(name)
    return drawn, ""


def draw_chart(
    path: pathlib.Path,
    title: str,
    axis: str,
    is_logarithmic: bool,
    groups: dict[str, str],
    results: Results,
) -> None:
    """Groups of bars, one bar per program, with whiskers from the minimum to the maximum."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    names = list(results.values)
    colours = [SUBJECT, *REFERENCES]
    for number, name in enumerate(names):
        offset = SHARE * ((number + 0.5) / len(names) - 0.5)
        colour = colours[number % len(colours)]
        for place, key in enumerate(groups):
            if spread := results.spread(name, key):
                draw_bar(axes, place + offset, SHARE / len(names), spread, colour, key)
        axes.bar(0, 0, color=colour, label=name)  # for the legend
    axes.margins(y=0.12)
    if is_logarithmic:
        use_powers_of_ten(axes, results, groups)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=26)
    axes.set_ylabel(axis)
    axes.set_xticks(range(len(groups)), list(groups.values()))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=min(4, len(names)),
        frameon=False,
        fontsize=9,
        handlelength=1,
        handleheight=1,
    )
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def use_powers_of_ten(axes, results: Results, groups: dict[str, str]) -> None:
    """A logarithmic axis that starts at the power of ten below all values; plain numbers."""
    spreads = (results.spread(name, key) for name in results.values for key in groups)
    least = min(it.least for it in spreads if it)
    axes.set_yscale("log")
    axes.set_ylim(bottom=10.0 ** math.floor(math.log10(least) if least > 0 else 0))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()


def draw_bar(axes, centre: float, width: float, spread: Spread, colour: str, key: str) -> None:
    axes.bar(centre, spread.median, 0.94 * width, color=colour)
    if spread.least != spread.greatest:
        axes.plot([centre, centre], [spread.least, spread.greatest], color=INK, linewidth=0.9)
    digits = min(1 if spread.median >= 10 else 2, BY_KEY[key].digits)
    axes.annotate(
        f"{spread.median:,.{digits}f}",
        (centre, spread.greatest),
        (0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
    )
