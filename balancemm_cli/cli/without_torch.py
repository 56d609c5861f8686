"""An empty torch for commands that only read.

They need the names, docstrings and settings of methods and models, which stand in modules that import torch, and
importing that takes seconds and 500 MB. So they import these modules with nothing in its place, as documentation is
built with `autodoc_mock_imports`. What would compute with it fails aloud.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

LEFT_OUT = ("torch", "torchvision", "torchaudio")


def leave_out_torch() -> None:
    """Import `LEFT_OUT` as empty modules from now on.

    Does nothing where torch is imported already, and where other packages announce methods, models or data sets: their
    modules may do anything with torch when they are imported.
    """
    announced = any(group.startswith("bmm.") for group in entry_points().groups)
    if not announced and "torch" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        left_out = fullname.partition(".")[0] in LEFT_OUT
        return ModuleSpec(fullname, self, is_package=True) if left_out else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


class _Module(ModuleType):
    """A module in which each name is a class."""

    def __getattr__(self, name: str) -> type:
        return _named(name)


class _Named(type):
    """The class of these classes: they may be derived from, stand in annotations and decorate, and that is all."""

    def __getattr__(cls, name: str) -> type:
        return _named(name)

    def __call__(cls, *given: Any, **named: Any) -> Callable[[Any], Any]:  # noqa: ANN401
        if given or named:
            raise RuntimeError(
                f"A command that only reads called torch's {cls.__name__}, which is left out here."
            )
        return lambda decorated: decorated  # as @torch.no_grad()


def _named(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Named(name, (), {})
