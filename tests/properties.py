"""Properties: tests that get random input, always the same in the suite, other input in `tools/fuzz.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy

# it keeps what it learns about the code in a folder, by default in the repository
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "toughen-hypothesis")

# a slow machine is no failure
SETTINGS = settings(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Property:
    """A test, what is drawn for its arguments, and how many inputs the suite tries."""

    test: Callable[..., None]
    given: dict[str, SearchStrategy[Any]]
    examples: int


PROPERTIES: dict[str, Property] = {}
"""All properties of the test files that were imported, by file and name."""


def holds(
    examples: int = 50, **strategies: SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of a property.

    Args:
        examples: how many the suite tries.
        strategies: what is drawn for each argument.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        PROPERTIES[f"{test.__module__.removeprefix('test_').removesuffix('_properties')}.{test.__name__}"] = Property(
            test, strategies, examples
        )
        return settings(SETTINGS, max_examples=examples, derandomize=True)(given(**strategies)(test))

    return decorate
