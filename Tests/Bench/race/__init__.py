"""Measures WireGuard programs against each other.

options    the command line, and which programs take part
race       rounds in which the programs take turns at each step
steps      what one program does in a step, and its figures;  nests  the same with tunnels nested
measures   the name of each figure, its unit, and whether more is better
results    the figures of all rounds: median, spread, ratio
limits     the limits that --check enforces
report, plots, machine    the documents written at the end
"""
