"""What every registered name has: an entry in `bmm list`, and a page or a package that says more."""

import importlib

from pydantic import BaseModel

from balancemm_cli.extensions import LOADED
from balancemm_cli.resources import PACKAGE

DOCS = PACKAGE.parent / "docs"


def assert_listed(kind: str, name: str) -> None:
    """`bmm list` has one line of that name, with a sentence, and where to read more."""
    listed = importlib.import_module("balancemm_cli.cli.list").KINDS[kind]()
    (entry,) = [entry for entry in listed if entry.name == name]
    what = f"the docstring of {name}, of which `bmm list` shows the first paragraph"
    assert entry.what.endswith("."), f"{what}, is no sentence: '{entry.what}'"
    extension = LOADED.get((f"bmm.{kind}", name))
    if extension is not None:
        assert entry.where == f"{extension.package} {extension.version}"
    elif DOCS.is_dir():  # else an installed wheel, which has no pages
        assert (DOCS.parent / entry.where).is_file(), f"there is no page {entry.where}"


def assert_settings_explained(kind: str, name: str, settings: type[BaseModel]) -> None:
    """Each setting stands on the page of what has it."""
    page = DOCS / kind / f"{name}.md"
    if (f"bmm.{kind}", name) in LOADED or not DOCS.is_dir():
        return
    text = page.read_text("utf-8")
    assert all(f"`{name}.{key}`" in text for key in settings.model_fields), f"{page} lacks a setting"
