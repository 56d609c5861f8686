"""What the origins of methods and models say is so: numbers where the tests have cases, marks where they have none."""

import pytest
from golden import held
from run_folders import write_run

from balancemm_cli.cli.list import KINDS
from balancemm_cli.extensions import LOADED
from balancemm_cli.methods import METHODS
from balancemm_cli.models import MODELS
from balancemm_cli.origin import not_held, origins
from balancemm_cli.results.collection import collect
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.formats import to_markdown

OURS = [
    name
    for group, registry in (("bmm.methods", METHODS), ("bmm.models", MODELS))
    for name in registry
    if (group, name) not in LOADED
]


@pytest.mark.parametrize("name", OURS)
def test_held_is_what_the_cases_say(name):
    origin = origins()[name]
    assert (origin.held != "equations") == (name in held())
    assert origin.paper and (origin.code is None or origin.code.count("/") == 1)


def test_every_case_is_of_something_registered():
    assert held().keys() <= {*METHODS, *MODELS}


@pytest.mark.parametrize("kind", ["methods", "models"])
def test_the_list_marks_what_was_never_held_against_code(kind):
    marked = {entry.name for entry in KINDS[kind]() if "not held against code" in entry.what}
    assert marked == {name for name in {"methods": METHODS, "models": MODELS}[kind] if name not in held()}


def test_names_of_a_report_s_rows():
    rows = [
        ("concat", "opm+moddrop"),
        ("unimodal-audio", "baseline"),
        ("avsdn", "moddrop"),
        ("else", "other"),
    ]
    assert not_held(rows) == ["moddrop", "avsdn"]


def test_a_report_notes_what_was_never_held_and_what_is_of_a_former_revision(tmp_path, monkeypatch):
    for seed in range(2):
        write_run(tmp_path, seed=seed, accuracy=0.6)
        write_run(tmp_path, "g-blending", seed, accuracy=0.7)
    assert "Not held against its authors' code: g-blending." in report(tmp_path)
    assert "former revision" not in report(tmp_path)
    monkeypatch.setattr(METHODS["g-blending"], "revision", 3)
    former = "Of a former revision, when a method or model of this name computed something else (CHANGELOG): "
    assert f"{former}concat g-blending." in report(tmp_path)


def report(folder):
    groups = collect([folder], "last").groups
    return "\n".join(to_markdown(table) for table in Contents(groups, "last").tables)
