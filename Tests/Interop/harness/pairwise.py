"""A small set of combinations in which any two choices meet: no full product, and no chance."""

import itertools


def pairwise(**factors: tuple) -> list[dict]:
    """Rows that hold every pair of values of any two factors at least once; always the same rows.

    Greedy: each row starts with the first pair that is still missing and takes, factor by factor,
    the value that makes the most missing pairs; of equal ones, the one used least so far.
    """
    names = list(factors)
    missing = {
        (one, first, other, second)
        for one, other in itertools.combinations(range(len(names)), 2)
        for first in range(len(factors[names[one]]))
        for second in range(len(factors[names[other]]))
    }
    uses = {(place, value): 0 for place in range(len(names)) for value in range(99)}
    rows = []
    while missing:
        one, first, other, second = min(missing)
        row: dict[int, int] = {one: first, other: second}
        for place in range(len(names)):
            if place not in row:
                row[place] = best_value(place, len(factors[names[place]]), row, missing, uses)
        missing -= set(pairs_of(row))
        for choice in row.items():
            uses[choice] += 1
        rows.append({name: factors[name][row[place]] for place, name in enumerate(names)})
    return rows


def best_value(place: int, count: int, row: dict, missing: set, uses: dict) -> int:
    def gain(value: int) -> tuple[int, int]:
        made = sum(pair in missing for pair in pairs_of({**row, place: value}))
        return made, -uses[(place, value)]

    return max(range(count), key=gain)


def pairs_of(row: dict[int, int]) -> list[tuple[int, int, int, int]]:
    return [
        (one, row[one], other, row[other]) for one, other in itertools.combinations(sorted(row), 2)
    ]
