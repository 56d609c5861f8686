"""The kinds of modality. One class holds all that the program knows of a kind; nothing else asks which one it has.

A new kind is a file here with a class over `Kind` (base.py; `Sequence` for what goes into the network as it is) and
a line in KINDS. Its settings, if it has any, are a section of the recipe that bears its name (config/recipe.py). An
example for tests/test_kinds.py puts it to all that a kind has to keep.
"""

from balancemm_cli.data.kinds.base import Kind, Spec
from balancemm_cli.data.kinds.features import Features
from balancemm_cli.data.kinds.frames import Frames
from balancemm_cli.data.kinds.tokens import Tokens
from balancemm_cli.data.kinds.waveform import Waveform
from balancemm_cli.errors import InputError

KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Waveform, Frames, Features, Tokens)}


def kind_of(spec: Spec) -> Kind:
    """The kind of a modality by its entry in a manifest. InputError for one that is not known here."""
    name = spec["kind"]
    if name not in KINDS:
        raise InputError(
            f"A modality is of the kind '{name}', which this version does not know (it knows {', '.join(KINDS)}). "
            "Use the program's version that made it."
        )
    return KINDS[name](spec)
