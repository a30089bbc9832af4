"""Waiting by polling, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class DeadlineError(AssertionError):
    """Something awaited did not happen in time; an assertion, so that a test fails by it."""


def wait_until(
    condition: Callable[[], Value], what: str, seconds: float = 5.0, interval: float = 0.02
) -> Value:
    """The first true value of `condition`, or a DeadlineError naming `what`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise DeadlineError(f"after {seconds:g} s still no: {what}")
        time.sleep(interval)
