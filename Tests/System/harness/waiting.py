"""Waiting by polling, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class DeadlineError(AssertionError):
    """Something did not happen in time; an assertion, so that the test fails."""


def wait_until(
    condition: Callable[[], Value], what: str, seconds: float = 15.0, interval: float = 0.02
) -> Value:
    """The first true value of `condition`, or a DeadlineError naming `what`.

    The condition is checked once more after the deadline, in case the machine paused.
    """
    end = time.monotonic() + seconds
    while True:
        is_late = time.monotonic() > end
        value = condition()
        if value:
            return value
        if is_late:
            raise DeadlineError(f"after {seconds:g} s still no: {what}")
        time.sleep(interval)
