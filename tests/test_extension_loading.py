"""What is loaded of other packages, what is refused and why, and by what their source is known."""

import json
import sys

import pytest
from run_folders import write_run
from small_training import CPU, SMALL
from test_extensions import EXAMPLES, announce

import balancemm_cli.data.datasets as datasets
import balancemm_cli.methods as methods
import balancemm_cli.models as models
from balancemm_cli import extensions
from balancemm_cli.config.recipe import Recipe
from balancemm_cli.config.run import RunConfig, resolve
from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.preparing.prepare import Request
from balancemm_cli.data.store import open_set
from balancemm_cli.engine.launch import Job, run_job
from balancemm_cli.engine.run_evaluation import evaluate_run
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import InputError
from balancemm_cli.extensions import LOADED, RESERVED, Extension, source_identity
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.base import Method
from balancemm_cli.results.collection import collect
from balancemm_cli.results.settings import recipe_notes
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.testing.sets import tiny_set

MINE = '''
from balancemm_cli.data.datasets.base import Dataset

class Mine(Dataset):
    """A data set."""

    name = "mine"
    HOW_TO_GET = "Write it yourself."

    def plan(self, source, splits, allow_missing):
        raise NotImplementedError
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with FixedDrop and another file, which this process can import."""
    package = tmp_path / "packages" / "my_balance"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "fixed_drop.py").write_text(EXAMPLES["FixedDrop"])
    announce(package, {"bmm.methods": {"fixed-drop": "my_balance.fixed_drop:FixedDrop"}})
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(extensions, "LOADED", {})
    monkeypatch.setattr(extensions, "FAULTY", [])
    yield package
    forget()


def forget():
    """As a new process would."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_balance", "my_helper")]:
        del sys.modules[name]
    extensions._sha256.cache_clear()
    extensions.LOADED.clear()
    extensions.FAULTY.clear()


def load(group="bmm.methods", base=Method, *given):
    """Load a group anew; the faults by name, and what was found."""
    forget()
    found = extensions.extensions(group, base, *given)
    return {one.name: one.explanation for one in extensions.FAULTY}, found


# ---- names ---------------------------------------------------------------------------------------------------


def test_the_names_that_no_method_or_model_may_have():
    assert {*Recipe.model_fields, *RunConfig.model_fields, *methods._OURS} == RESERVED
    assert {name.casefold() for name in RESERVED} == RESERVED


@pytest.mark.parametrize(
    "name", ["a/b", "opm+x", "a.b", "a b", "-a", "_a", "a_b", "é", "\x1b[31ma", "..", "a\x07"]
)
def test_a_name_of_other_signs_is_refused(package, name):
    announce(package, {"bmm.methods": {name: "my_balance.fixed_drop:FixedDrop"}})
    faults, found = load()
    (explained,) = faults.values()
    assert not found and explained.isprintable()
    assert explained.endswith(
        "of my-balance has a name of other signs than letters, digits and hyphens. Mend or uninstall it."
    )


def test_a_name_that_is_taken_in_other_capitals_is_refused(package):
    points = ["OPM", "drop-2", "Drop-2"]
    announce(package, {"bmm.methods": dict.fromkeys(points, "my_balance.fixed_drop:FixedDrop")})
    faults, found = load("bmm.methods", Method, ["opm"])
    assert list(found) == ["drop-2"] and set(faults) == {"OPM", "Drop-2"}
    assert "has a name that is taken" in faults["OPM"]


# ---- broken ones ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(0)", "can't be imported: 0. Mend"),
        ("class Gone(BaseException): pass\nraise Gone", "can't be imported: Gone. Mend"),
        ("raise ImportError('\\n  no \\x1b[31mlibrary\\rhere. \\nmore')", "can't be imported: no [31mlibrary. Mend"),
        ("raise ImportError('Did you mean x?')", "can't be imported: Did you mean x? Mend"),
        ("raise ImportError('a' * 10**6)", f"can't be imported: {'a' * 500}. Mend"),
        ("x = (", "can't be imported: '(' was never closed (fixed_drop.py, line 1). Mend"),
        ("import balancemm_cli.methods.base as b\nclass FixedDrop(b.Method): Settings = int",
         "can't be used: its Settings are no subclass of MethodSettings. Mend"),
        ("import balancemm_cli.methods.base as b\nclass FixedDrop(b.Method): VARIANTS = {'paper': {}}",
         "can't be used: its VARIANTS lack one of paper and official. Mend"),
    ],
)  # fmt: skip
def test_whatever_a_package_raises_is_its_fault_in_a_sentence(package, code, said):
    (package / "fixed_drop.py").write_text(code)
    faults, found = load("bmm.methods", Method, [], methods._usable)
    assert not found and f"'fixed-drop' (bmm.methods) of my-balance {said}" in faults["fixed-drop"]
    assert faults["fixed-drop"].isprintable()


def test_an_entry_that_is_none_is_its_fault(package):
    announce(package, {"bmm.methods": {"fixed-drop": "no module!"}})
    faults, found = load()
    assert not found and "can't be imported" in faults["fixed-drop"]


def test_a_model_named_like_one_modality_is_refused(package):
    (package / "largest.py").write_text(EXAMPLES["Largest"])
    points = {"largest": "my_balance.largest:Largest", "unimodal-audio": "my_balance.largest:Largest"}
    announce(package, {"bmm.models": points})
    faults, found = load("bmm.models", models.Fusion, models._OURS, models._usable)
    assert list(found) == ["largest"] and "begins with 'unimodal-'" in faults["unimodal-audio"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    def plan", "    def other", "can't be used: Can't instantiate abstract class Mine"),
        (
            '    name = "mine"\n',
            "    def __init__(self): 1 / 0\n    name = 'mine'\n",
            "can't be used: division by zero",
        ),
        ('name = "mine"', 'name = "crema-d"', "can't be used: its class has the name 'crema-d'"),
        ('    name = "mine"\n', "", "can't be used: type object 'Mine' has no attribute 'name'"),
        ("    HOW_TO_GET", "    HOW", "can't be used: type object 'Mine' has no attribute 'HOW_TO_GET'"),
        (
            '    name = "mine"',
            '    OPTIONS = {"fold": ()}\n    name = "mine"',
            "can't be used: its OPTIONS are not",
        ),
    ],
)
def test_a_data_set_that_is_none_is_its_fault(package, old, new, said):
    announce(package, {"bmm.datasets": {"mine": "my_balance.mine:Mine"}})
    (package / "mine.py").write_text(MINE)
    faults, found = load("bmm.datasets", Dataset, [], datasets._made)
    assert not faults and isinstance(found["mine"], Dataset)
    assert MINE.count(old) == 1
    (package / "mine.py").write_text(MINE.replace(old, new))
    faults, found = load("bmm.datasets", Dataset, [], datasets._made)
    assert not found and said in faults["mine"]


def test_a_data_set_whose_plan_fails_is_named(package, monkeypatch):
    announce(package, {"bmm.datasets": {"mine": "my_balance.mine:Mine"}})
    (package / "mine.py").write_text(MINE.replace("raise NotImplementedError", "raise SystemExit(0)"))
    _, found = load("bmm.datasets", Dataset, [], datasets._made)
    monkeypatch.setitem(datasets.DATASETS, "mine", found["mine"])
    with pytest.raises(
        InputError, match=r"The preparation failed in line 11 of mine.py of my-balance 1.0: SystemE"
    ):
        _ = Request("mine", package).plan


# ---- the source ----------------------------------------------------------------------------------------------


def identity():
    """That of FixedDrop, loaded anew: the hash of its source."""
    load()
    found = source_identity("bmm.methods", "fixed-drop")
    assert (found["package"], found["version"]) == ("my-balance", "1.0")
    return found["sha256"]


def record(package, *names):
    """List files in the distribution's RECORD, as an installer does."""
    about = package.parent / "my_balance-1.0.dist-info"
    (about / "RECORD").write_text("".join(f"{name},,\n" for name in names))


def of_a_namespace(package):
    (package / "__init__.py").unlink()
    return package / "helper.py"


def of_a_recorded_module(package):
    record(package, "my_balance/__init__.py", "my_helper.py", "../../bin/tool")
    return package.parent / "my_helper.py"


def of_a_top_level_package(package):
    (package.parent / "my_helper").mkdir()
    (package.parent / "my_helper" / "__init__.py").touch()
    (package.parent / "my_balance-1.0.dist-info" / "top_level.txt").write_text("my_balance\nmy_helper\n")
    return package.parent / "my_helper" / "inner.py"


@pytest.mark.parametrize(
    "place",
    [
        lambda package: package / "inner.py",
        lambda package: package / "table.json",
        lambda package: package / "deep" / "library.so",
        of_a_namespace,
        of_a_recorded_module,
        of_a_top_level_package,
    ],
    ids=["module", "data", "binary", "namespace", "recorded", "top-level"],
)
def test_each_file_of_an_extension_is_part_of_what_it_is(package, place):
    path = place(package)
    path.parent.mkdir(exist_ok=True)
    path.write_text("1")
    before = identity()
    assert identity() == before
    path.write_text("2")
    assert identity() != before


def test_what_is_made_of_the_source_is_no_part_of_it(package):
    record(package, "my_balance/fixed_drop.py", "my_balance-1.0.dist-info/RECORD", "../../bin/tool", "x.pth")
    before = identity()
    for name in ("__pycache__/x.pyc", ".git/HEAD", ".swp"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("1")
    (package.parent / "x.pth").write_text("/somewhere")
    (package.parent / "beside.py").write_text("1")
    assert identity() == before


def test_the_place_of_installation_is_no_part_of_it(package, tmp_path, monkeypatch):
    before = identity()
    package.parent.rename(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    assert identity() == before


def test_a_package_that_announces_both_has_one_source_and_ours_none(package):
    (package / "largest.py").write_text(EXAMPLES["Largest"])
    points = {"bmm.models": {"largest": "my_balance.largest:Largest"}}
    announce(package, points | {"bmm.methods": {"fixed-drop": "my_balance.fixed_drop:FixedDrop"}})
    of_method = identity()
    extensions.extensions("bmm.models", models.Fusion)
    assert source_identity("bmm.models", "largest")["sha256"] == of_method
    assert source_identity("bmm.methods", "opm") is None


def test_another_class_under_the_name_is_another_source(package):
    (package / "fixed_drop.py").write_text(EXAMPLES["FixedDrop"] + "\n\nclass Other(FixedDrop):\n    pass\n")
    before = identity()
    announce(package, {"bmm.methods": {"fixed-drop": "my_balance.fixed_drop:Other"}})
    assert identity() != before


# ---- runs ----------------------------------------------------------------------------------------------------


class Drop(Method):
    """A method that stands for one of another package."""

    def on_step_end(self, step):
        """Do nothing."""


def as_loaded(monkeypatch, sha256, method=Drop):
    """Let the method be that of a package whose source has this hash."""
    monkeypatch.setitem(METHODS, "my-drop", method)
    about = Extension("bmm.methods", "my-drop", "my-balance", "1.0", None, frozenset([THIS]), sha256)
    monkeypatch.setitem(LOADED, ("bmm.methods", "my-drop"), about)


THIS = extensions.Path(__file__)
CHANGED = r"The source of 'my-drop' \(my-balance 1.0\) has changed since this run was "


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny_set(folder / "manifest")
    return folder


def test_a_job_of_a_source_that_was_edited_since_is_not_trained(data, tmp_path, monkeypatch):
    """Queued with one source, and begun where another one is there; or none."""
    as_loaded(monkeypatch, "a" * 64)
    config = resolve("manifest", method="my-drop", overrides=SMALL)
    job = Job(config, data / "manifest", tmp_path / "runs", device="cpu")
    as_loaded(monkeypatch, "b" * 64)
    for _ in ("edited", "gone"):
        with pytest.raises(InputError, match=CHANGED + "planned. Run the same command again."):
            run_job(job, lambda *_: None, lambda _: None)
        monkeypatch.delitem(LOADED, ("bmm.methods", "my-drop"), raising=False)
    assert not (tmp_path / "runs").exists()
    as_loaded(monkeypatch, "a" * 64)
    assert run_job(job, lambda *_: None, lambda _: None)["status"] == "finished"


def test_a_run_is_not_evaluated_by_another_source(data, tmp_path, monkeypatch):
    as_loaded(monkeypatch, "a" * 64)
    config = resolve("manifest", method="my-drop", overrides=SMALL)
    folder = RunFolder(tmp_path, config, open_set(data / "manifest"))
    train_run(folder, CPU)
    assert evaluate_run(folder.path, data, CPU)[0].epochs == 1
    as_loaded(monkeypatch, "b" * 64)
    with pytest.raises(InputError, match=CHANGED + r"trained \(.*\). Install that version again, or train"):
        evaluate_run(folder.path, data, CPU)


class Leaving(Drop):
    """One that ends the program."""

    def on_step_end(self, step):
        """End it, as if all were well."""
        sys.exit(0)


class Unusual(Drop):
    """One that raises what no `except Exception` meets."""

    def on_step_end(self, step):
        """Raise it."""
        raise GeneratorExit2("\x1b[31mgone?\nfor good")


class GeneratorExit2(BaseException):
    """No Exception."""


@pytest.mark.parametrize(
    ("method", "said"), [(Leaving, "SystemExit: 0."), (Unusual, "GeneratorExit2: [31mgone? Mend")]
)
def test_a_hook_that_ends_the_program_ends_the_run_as_failed(data, tmp_path, monkeypatch, method, said):
    as_loaded(monkeypatch, "a" * 64, method)
    config = resolve("manifest", method="my-drop", overrides=SMALL)
    folder = RunFolder(tmp_path, config, open_set(data / "manifest"))
    with pytest.raises(InputError) as ended:
        train_run(folder, CPU)
    result = json.loads((folder.path / "result.json").read_text())
    assert result["status"] == "failed"
    assert f"{THIS.name} of my-balance 1.0: {said}" in str(ended.value)


def test_a_model_that_ends_the_program_in_an_evaluation_is_named(data, tmp_path, monkeypatch):
    as_loaded(monkeypatch, "a" * 64)
    config = resolve("manifest", method="my-drop", overrides=SMALL)
    folder = RunFolder(tmp_path, config, open_set(data / "manifest"))
    train_run(folder, CPU)
    monkeypatch.setattr(models.Concat, "forward", lambda *_: sys.exit(0))
    with pytest.raises(
        InputError, match=f"The evaluation failed in line .* of {THIS.name} of my-balance 1.0: Sys"
    ):
        evaluate_run(folder.path, data, CPU)


def test_a_report_names_the_method_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "my-drop", Drop)
    write_run(tmp_path, "opm+my-drop", accuracy=0.9)
    monkeypatch.delitem(METHODS, "my-drop")
    (note,) = recipe_notes(collect([tmp_path], "last").groups)
    assert "concat opm+my-drop (method my-drop not known here)" in note
