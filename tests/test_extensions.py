"""The worked examples of CONTRIBUTING.md, installed as a package of their own: they train, and faults are named."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from media_files import tone, write_video
from small_training import SMALL
from warm_python import python

from balancemm_cli.testing.sets import tiny_set

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
CODE = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.M | re.S)
EXAMPLES = {name: code for _, code in CODE for name in re.findall(r"^class (\w+)\(", code, re.M)}
ITS_TEST = next(code for kind, code in CODE if kind == "python" and "def test_" in code)
PYPROJECT, WORKFLOW = (next(code for kind, code in CODE if kind == of) for of in ("toml", "yaml"))


DATASET = '''
from pathlib import Path

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import no_lists
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, frames, waveform
from balancemm_cli.data.datasets.tree import files_below, need_folder


class MyClips(Dataset):
    """Videos in a folder a class in a folder a split."""

    name = "my-clips"
    HOW_TO_GET = "Film them."
    SPLIT_NAMES = ("own",)

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The videos below `source`, by their folders."""
        no_lists(self.name, splits)
        need_folder(source, self.HOW_TO_GET)
        samples = []
        for name in files_below(source):
            split, label, file = name.split("/")
            clip = Clip(source, name)
            samples.append(Sample(name, split, label, {"audio": clip, "visual": clip}))
        classes = sorted({sample.label for sample in samples})
        modalities = {"audio": waveform(8000), "visual": frames(32, 32, 1)}
        return Plan(self.name, samples, classes, modalities, split_name="own")
'''

HOOK = "def on_inputs(self, inputs: dict[str, Tensor], step: Step) -> dict[str, Tensor]:"


@pytest.fixture
def package(tmp_path):
    """A folder to import from, as pip would have left it."""
    package = tmp_path / "packages" / "my_balance"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "fixed_drop.py").write_text(EXAMPLES["FixedDrop"])
    (package / "brake.py").write_text(EXAMPLES["Brake"])
    (package / "largest.py").write_text(EXAMPLES["Largest"])
    groups = tomllib.loads(PYPROJECT)["project"]["entry-points"]
    (package / "clips.py").write_text(DATASET)
    groups["bmm.datasets"] = {"my-clips": "my_balance.clips:MyClips"}
    announce(package, groups)
    return package


def announce(package, groups):
    lines = [
        line
        for group, points in groups.items()
        for line in [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    ]
    about = package.parent / "my_balance-1.0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-balance\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small prepared set of feature sequences, in a folder for --data."""
    folder = tmp_path_factory.mktemp("data")
    tiny_set(folder / "manifest")
    return folder


def run(package, folder, *command):
    path = os.pathsep.join([str(package.parent), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    return python(*command, folder=folder, environment=environment)


def bmm(package, folder, *words):
    return run(package, folder, "-m", "balancemm_cli", *words)


def train(package, folder, data, *words):
    settings = [word for setting in SMALL for word in ("--set", setting)]
    common = ["--dataset", "manifest", "--data", data, "--device", "cpu", *settings]
    return bmm(package, folder, "train", *common, *words)


def test_a_method_and_a_model_of_another_package_train(package, tmp_path, data):
    names = ["--model", "largest", "--method", "opm+fixed-drop", "--set", "fixed-drop.probability=0.5"]
    done = train(package, tmp_path, data, *names, "--set", "largest.width=8")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / done.stdout.strip()
    result = json.loads((folder / "result.json").read_text())
    assert (result["model"], result["method"], result["status"]) == ("largest", "opm+fixed-drop", "finished")
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["model_settings"]["width"] == 8
    assert config["methods"]["fixed-drop"] == {"probability": 0.5}
    again = bmm(package, tmp_path, "eval", folder, "--data", data, "--device", "cpu")
    assert again.returncode == 0, again.stderr
    listed = bmm(package, tmp_path, "list", "models").stdout
    assert re.search(
        r"^largest .*The largest of the modalities' projected .*\[my-balance 1\.0\]$", listed, re.M
    )


def test_a_broken_one_is_named_and_the_rest_works(package, tmp_path, data):
    (package / "largest.py").write_text("import nothing_of_that_name\n")
    explained = (
        "bmm: 'largest' (bmm.models) of my-balance can't be imported: No module named 'nothing_of_that_name'"
    )
    trained = train(package, tmp_path, data, "--method", "fixed-drop")
    assert trained.returncode == 0 and trained.stderr.count(explained) == 1
    asked = train(package, tmp_path, data, "--model", "largest")
    assert asked.returncode == 3 and asked.stderr.strip() == f"{explained}. Mend or uninstall it."
    listed = bmm(package, tmp_path, "list", "models")
    assert listed.returncode == 0 and listed.stderr.count(explained) == 1
    assert re.search(r"^largest +\(of no use: can't be imported: .*\[my-balance 1\.0\]$", listed.stdout, re.M)
    assert re.search(r"^concat ", listed.stdout, re.M)
    examined = bmm(package, tmp_path, "doctor").stdout
    assert "ok        'fixed-drop' (bmm.methods) of my-balance 1.0" in examined
    assert "optional  'largest' (bmm.models) of my-balance can't be imported" in examined


def test_what_is_announced_must_be_of_use_under_a_name_of_its_own(package, tmp_path):
    """Not that of a setting, of another method or model, or of ours; nor may it end the commands."""
    (package / "gone.py").write_text("raise SystemExit(0)")
    drop, largest = "my_balance.fixed_drop:FixedDrop", "my_balance.largest:Largest"
    of_settings = ["optimizer", "epochs", "frames", "speed", "seed"]
    methods = dict.fromkeys([*of_settings, "opm", "concat", "largest", "my/drop", "fixed-drop"], drop)
    models = dict.fromkeys([*of_settings, "opm", "concat", "unimodal-audio", "largest"], largest)
    datasets = {
        "crema-d": "my_balance.clips:MyClips",
        "clips": "my_balance.clips:MyClips",
        "gone": "my_balance.gone:X",
    }
    methods |= {"step": "balancemm_cli.methods.base:Step", "gone": "my_balance.gone:X"}
    announce(package, {"bmm.methods": methods, "bmm.models": models, "bmm.datasets": datasets})
    listed = bmm(package, tmp_path, "list")
    assert listed.returncode == 0
    said = listed.stderr.splitlines()
    taken = [
        *(f"'{name}' (bmm.methods)" for name in [*of_settings, "opm", "concat", "largest"]),
        *(f"'{name}' (bmm.models)" for name in [*of_settings, "opm", "concat"]),
        "'crema-d' (bmm.datasets)",
    ]
    for name in taken:
        assert f"bmm: {name} of my-balance has a name that is taken. Mend or uninstall it." in said
    assert "bmm: 'step' (bmm.methods) of my-balance is no subclass of Method. Mend or uninstall it." in said
    others = ("'my/drop' (bmm.methods)", "'unimodal-audio' (bmm.models)", "'clips' (bmm.datasets)")
    others += ("'gone' (bmm.methods)", "'gone' (bmm.datasets)")
    for name in others:
        assert sum(line.startswith(f"bmm: {name} of my-balance ") for line in said) == 1
    assert len(said) == len(taken) + 1 + len(others)
    for entry in (
        r"fixed-drop .*\[my-balance 1\.0\]",
        r"largest .*\[my-balance 1\.0\]",
        r"opm .*\[docs/methods/opm\.md\]",
    ):
        assert re.search(rf"^  {entry}$", listed.stdout, re.M)
    assert re.search(
        r"^  clips .*\(of no use: can't be used: .* 'my-clips'\)  \[my-balance 1\.0\]$", listed.stdout, re.M
    )


@pytest.mark.parametrize(
    ("wrong", "explained"),
    [
        (
            HOOK.replace("on_inputs", "on_input"),
            "FixedDrop has a hook 'on_input', which no step calls. Did you mean 'on_inputs'?",
        ),
        (
            HOOK.replace(", step: Step", "").replace("Tensor]", "Tensor]", 1),
            "FixedDrop.on_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] is called as "
            "on_inputs(self, inputs, step)",
        ),
    ],
    ids=["misspelt", "other arguments"],
)
def test_a_hook_that_no_step_can_call_is_refused(package, tmp_path, wrong, explained):
    code = EXAMPLES["FixedDrop"]
    assert HOOK in code
    (package / "fixed_drop.py").write_text(code.replace(HOOK, wrong))
    listed = bmm(package, tmp_path, "list", "methods")
    assert listed.returncode == 0 and f"of my-balance can't be imported: {explained}" in listed.stderr


def test_an_error_in_a_hook_ends_the_run_as_failed_and_the_mended_one_trains(package, tmp_path, data):
    code = EXAMPLES["FixedDrop"]
    broken = code.replace("        u = step", "        1 // (1 - step.epoch)\n        u = step")
    (package / "fixed_drop.py").write_text(broken)
    options = ["--method", "fixed-drop", "--set", "epochs=2"]
    done = train(package, tmp_path, data, *options)
    line = broken.splitlines().index("        1 // (1 - step.epoch)") + 1
    said = (
        f"The training failed in line {line} of fixed_drop.py of my-balance 1.0: ZeroDivisionError: integer"
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert said in done.stderr and "Mend it, then run the same command" in done.stderr
    (path,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(path.read_text())
    assert result["status"] == "failed" and result["error"].startswith(said)
    assert train(package, tmp_path, data, *options, "--status").stdout.startswith("failed ")
    first = path.with_name("history.jsonl").read_text()
    assert first.count("\n") == 1  # the epoch before it is kept
    (package / "fixed_drop.py").write_text(code)
    mended = train(package, tmp_path, data, *options)
    assert mended.returncode == 0
    folder = tmp_path / mended.stdout.strip()
    assert folder != path.parent  # of another source, so another run
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished" and "error" not in result and result["epochs"] == 2


def test_an_error_before_the_first_step_is_kept_too(package, tmp_path, data):
    code = EXAMPLES["FixedDrop"].replace("self.probability = settings.probability", "open('none.txt')")
    (package / "fixed_drop.py").write_text(code)
    done = train(package, tmp_path, data, "--method", "fixed-drop")
    assert done.returncode == 3 and "of my-balance 1.0: FileNotFoundError: [Errno 2]" in done.stderr
    (path,) = (tmp_path / "runs").rglob("result.json")
    assert json.loads(path.read_text())["status"] == "failed"


def contract(package, folder, chosen, *further):
    options = ["-p", "no:cacheprovider", "--rootdir", folder, "--pyargs", "balancemm_cli.testing", *further]
    return run(package, folder, "-m", "pytest", "-q", *options, "-k", chosen)


def test_the_contract_holds_for_all_of_a_package_by_the_command_that_is_shown(package, tmp_path):
    """For the method and the model that are shown, and for a data set."""
    (command,) = re.findall(r"^    pytest --pyargs balancemm_cli\.testing -k \"(.* or .*)\"$", TEXT, re.M)
    done = contract(package, tmp_path, f"{command} or my-clips", "-rA")
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 40
    assert len(re.findall(r"^PASSED .*test_datasets\.py::.*\[my-clips\]$", done.stdout, re.M)) == 5


def test_the_package_that_is_shown_is_whole(tmp_path):
    """Built and installed from its files alone, it is found, and the commands of its workflow pass."""
    pytest.importorskip("hatchling", reason="needs hatchling: pip install 'balancemm-cli[dev]'")
    files = {
        "my_balance/__init__.py": "",
        "my_balance/fixed_drop.py": EXAMPLES["FixedDrop"],
        "my_balance/brake.py": EXAMPLES["Brake"],
        "my_balance/largest.py": EXAMPLES["Largest"],
        "tests/test_fixed_drop.py": ITS_TEST,
        "pyproject.toml": PYPROJECT,
        ".github/workflows/test.yml": WORKFLOW,
    }
    blocks = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.M | re.S)
    (tree,) = (block for block in blocks if block.startswith("my_balance/__init__.py"))
    assert [line.split()[0] for line in tree.splitlines()] == list(files)
    source, package = tmp_path / "source", tmp_path / "packages" / "my_balance"
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    assert run(package, source, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path).returncode == 0
    (wheel,) = tmp_path.glob("my_balance-1.0-*.whl")
    command = ["-m", "pip", "install", "--no-deps", "--no-index", "--target", package.parent, wheel]
    assert run(package, source, *command).returncode == 0
    listed = bmm(package, tmp_path, "list", "methods").stdout
    assert re.search(r"^fixed-drop .*\[my-balance 1\.0\]$", listed, re.M)
    of_the_test, of_the_contract = re.findall(r"- run: (pytest .*)$", WORKFLOW, re.M)
    done = run(package, source, "-m", *of_the_test.split(), "-p", "no:cacheprovider")
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout
    assert f"    {of_the_contract}\n" in TEXT  # which another test runs


def test_the_test_that_is_shown_catches_a_wrong_method(package, tmp_path):
    (tmp_path / "test_fixed_drop.py").write_text(ITS_TEST)
    wrong = EXAMPLES["FixedDrop"].replace("u >= self.probability", "u >= self.probability / 2")
    (package / "fixed_drop.py").write_text(wrong)
    done = run(package, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_fixed_drop.py")
    assert done.returncode == 1 and "2 failed, 1 passed" in done.stdout, done.stdout


def test_the_contract_catches_a_method_that_waits_and_forgets(package, tmp_path):
    code = EXAMPLES["FixedDrop"]
    wrong = code.replace("keep = u >= self.probability", "keep = u >= self.probability * float(u.max() > 0)")
    wrong = wrong.replace("step.streams.uniform(", "torch.rand(").replace(
        ', "fixed-drop", step.labels.device)', ")"
    )
    wrong = wrong.replace("from torch import Tensor", "import torch\nfrom torch import Tensor")
    assert wrong.count("float(") == 1 and wrong.count("torch.rand(") == 1
    (package / "fixed_drop.py").write_text(wrong)
    done = contract(package, tmp_path, "fixed-drop and paper and (never_waits and vectors or resumed)")
    assert done.returncode == 1
    assert "2 failed" in done.stdout and "waits for the device" in done.stdout


def test_another_source_is_another_run(package, tmp_path, data):
    """An edited method is not taken for the one that the finished run had, whose source is recorded."""
    words = ("--method", "opm+fixed-drop", "--model", "largest")
    done = train(package, tmp_path, data, *words)
    config = tomllib.loads((tmp_path / done.stdout.strip() / "config.toml").read_text())
    assert set(config["extensions"]) == {"fixed-drop", "largest"}
    assert config["extensions"]["fixed-drop"]["version"] == "1.0"
    assert train(package, tmp_path, data, *words, "--status").stdout.startswith("finished")
    source = package / "fixed_drop.py"
    source.write_text(source.read_text().replace("u >= self.probability", "u >= 0.9 * self.probability"))
    assert train(package, tmp_path, data, *words, "--status").stdout.startswith("waiting")
    evaluated = bmm(package, tmp_path, "eval", tmp_path / done.stdout.strip(), "--data", data)
    assert evaluated.returncode == 3 and "has changed since this run was trained" in evaluated.stderr


def test_a_data_set_of_another_package_is_prepared_under_its_name(package, tmp_path):
    for split, label, count in [("train", "a", 2), ("train", "b", 2), ("test", "a", 1), ("test", "b", 1)]:
        folder = tmp_path / "clips" / split / label
        folder.mkdir(parents=True)
        for number in range(count):
            write_video(folder / f"{number}.mkv", [40] * 10, samples=tone(2))
    done = bmm(package, tmp_path, "prepare", "my-clips", "--source", "clips")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "data" / "prepared" / "my-clips" / "manifest.json").read_text())
    assert (manifest["reader"], manifest["split_name"]) == ("my-clips", "own")
