"""Which cases of the contract are short, and which are left to the night."""

from collections.abc import Iterable

import pytest


def others_at_length(names: Iterable[str], first: str) -> list:
    """Parameters of a test: `first` as it is, the other names marked `long`."""
    return [name if name == first else pytest.param(name, marks=pytest.mark.long) for name in names]
