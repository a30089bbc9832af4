"""Measuring WireGuard programs against each other.

options      what is asked for on the command line;  competitors  who takes part
race         rounds in which the programs take turns at each step
  steps, handshake_step, start_step, peer_step, idle    what one program does, and its figures
measures     what each figure is called, its unit and whether more is better
results      the figures of all rounds: median, spread, ratio
other_work   how busy the machine is with something else
limits       what --check demands
report, plots, machine    what is written down in the end
"""
