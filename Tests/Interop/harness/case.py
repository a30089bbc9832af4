"""The base of all interoperability tests."""

import enum
import itertools
import unittest
from collections.abc import Callable
from typing import ClassVar

from .lab import Lab
from .node import Node
from .pair import Pair, build_pair
from .settings import Settings

ROLES = ("initiator", "responder")
FAMILIES = (4, 6)


def each(**choices: tuple) -> Callable:
    """Make a test method one test per combination of the choices, which it takes by name."""

    def mark(function: Callable) -> Callable:
        function.choices = choices
        return function

    return mark


def trait(name: str) -> Callable:
    def mark(function: Callable) -> Callable:
        setattr(function, name, True)
        return function

    return mark


# quick: part of the short run. long: started first, because it mostly waits.
# heavy: wants a processor to itself. culvert_only: others are not expected to do it.
quick, long, heavy = trait("quick"), trait("long"), trait("heavy")
culvert_only = trait("culvert_only")


def needs(what: str) -> Callable:
    """Skip the test, with the reason, where the program's system lacks this: see Program.lacks."""

    def mark(function: Callable) -> Callable:
        function.needs = what
        return function

    return mark


class InteropCase(unittest.TestCase):
    """A test with a lab of its own, which is taken down and checked for leftovers."""

    settings: ClassVar[Settings]

    def __init_subclass__(cls, **options) -> None:
        super().__init_subclass__(**options)
        for name, function in list(vars(cls).items()):
            if hasattr(function, "choices"):
                delattr(cls, name)
                expand(cls, name, function)

    def setUp(self) -> None:
        self.lab = Lab()
        self.addCleanup(self.close_lab)

    def close_lab(self) -> None:
        complaints = self.lab.close()
        self.assertEqual(complaints, [], "left behind at the end")

    @property
    def method(self) -> Callable:
        return getattr(type(self), self._testMethodName)

    def firewall_mark(self, value: int) -> int:
        """A firewall mark, 0 where there are none."""
        return 0 if "fwmark" in self.settings.program.lacks else value

    def pair(self, role: str = "initiator", **options) -> Pair:
        """The program under test in the given role, with the peer at the other end."""
        return build_pair(self.lab, self.settings.program, self.settings.peer, role, **options)

    def node(self, role: str = "ours") -> Node:
        """A node of the program under test alone in a namespace, not started."""
        node = self.lab.node(self.lab.namespace(role), self.settings.program, role)
        node.inner4, node.inner6, node.port = "10.7.0.1", "fd07::1", 51001
        return node


def expand(cls: type, name: str, function: Callable) -> None:
    """Put one method per combination of choices into the class."""
    names = list(function.choices)
    for values in itertools.product(*function.choices.values()):
        chosen = dict(zip(names, values))

        def method(self, chosen=chosen):
            return function(self, **chosen)

        method.__dict__.update(function.__dict__)
        method.__name__ = "_".join([name, *(label(key, chosen[key]) for key in names)])
        method.__doc__ = function.__doc__
        setattr(cls, method.__name__, method)


def label(key: str, value: object) -> str:
    """How a choice reads in a test's name: the word itself, or e.g. outer6, with_psk."""
    if isinstance(value, bool):
        return f"{'with' if value else 'without'}_{key}"
    if isinstance(value, enum.Enum):
        return value.name
    return (value or "empty") if isinstance(value, str) else f"{key}{value}"
