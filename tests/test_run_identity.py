"""What makes a run the same run: its hash, its place, its environments, its lock."""

import fcntl
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from run_folders import write_run
from small_training import CPU, SMALL

from balancemm_cli import resources
from balancemm_cli.cli.train import parse_seeds
from balancemm_cli.config.recipe import Recipe
from balancemm_cli.config.run import read_config, resolve
from balancemm_cli.config.suites import load_suite
from balancemm_cli.data.store import open_set
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods import METHODS
from balancemm_cli.results.collection import collect
from balancemm_cli.runs.evaluation import RunEvaluation, keep, read_evaluation
from balancemm_cli.runs.folder import ALIVE, LOCK, RunFolder, is_locked
from balancemm_cli.runs.places import Places
from balancemm_cli.runs.reading import read_environments
from balancemm_cli.runs.run import read_all, read_run
from balancemm_cli.runs.schema import Metrics
from balancemm_cli.runs.status import read_status

# A hash here moves only where a run means something else: then say in CHANGELOG that runs of before are other ones.
PINNED = {
    ("synthetic", "concat", "baseline", "paper"): "61d45a9c1b279d79",
    ("synthetic", "concat", "opm+ogm", "paper"): "b6345fed751b9b5a",
    ("synthetic", "concat", "opm+ogm", "official"): "854bd05c5b8ae87d",
    ("crema-d", "film", "agm", "paper"): "c1a03a001a8c9d77",
    ("cmu-mosi", "unimodal-text", "baseline", "paper"): "ce8e200dbdc1b10f",
}


@pytest.mark.parametrize("names", PINNED, ids=lambda names: "-".join(names))
def test_hashes_are_pinned(names):
    dataset, model, method, variant = names
    assert resolve(dataset, model, method, variant, seed=1).hash("data")[:16] == PINNED[names]


def test_a_new_setting_with_a_default_changes_no_hash(monkeypatch):
    config = resolve("synthetic", method="opm")

    class Later(Recipe):
        """The recipe of a later version."""

        label_smoothing: float = 0.0

    class LaterOPM(METHODS["opm"].Settings):
        """OPM's settings in a later version."""

        share: float = 1.0

    later = config.model_copy(update={"settings": Later(**config.settings.model_dump())})
    monkeypatch.setattr(METHODS["opm"], "Settings", LaterOPM)
    later.methods["opm"]["share"] = 1.0
    assert later.hash("data") == config.hash("data")
    smoothed = config.model_copy(
        update={"settings": Later(**config.settings.model_dump(), label_smoothing=0.1)}
    )
    assert smoothed.hash("data") != config.hash("data")


def test_names_that_change_no_number_change_no_hash():
    """A baseline is the same in both variants, a recipe of one's own with the same settings the same recipe."""
    official, paper = (resolve("synthetic", variant=variant) for variant in ("official", "paper"))
    assert official.hash("data") == paper.hash("data")
    assert paper.model_copy(update={"recipe": "mine"}).hash("data") == paper.hash("data")
    of_opm = {
        resolve("synthetic", method="opm", variant=variant).hash("data") for variant in ("official", "paper")
    }
    assert len(of_opm) == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_hash_is_that_of_config_toml(tmp_path, method, variant):
    config = resolve("synthetic", method=method, variant=variant)
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert read_config(tmp_path / "config.toml").hash("data") == config.hash("data")


@pytest.mark.parametrize(
    ("model", "method", "name"), [("film", "baseline", "film"), ("concat", "g-blending", "g-blending")]
)
def test_a_run_from_before_a_change_is_another_run(tmp_path, model, method, name):
    """Before it had revisions, a run said nothing of them."""
    config = resolve("synthetic", model, method)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml().replace(f"[revisions]\n{name} = 2\n", ""))
    former = read_config(path)
    assert config.revisions == {name: 2} and not former.revisions
    assert former.hash("data") != config.hash("data")
    assert former.by_key == {key: value for key, value in config.by_key.items() if key != f"revisions.{name}"}
    with pytest.raises(
        InputError, match=f"'{name}' computes something else .* was trained: revision 2 here, 1 there"
    ):
        former.check_sources("was trained", "Train the run anew.")
    path.write_text(config.to_toml())
    assert read_config(path) == config
    config.check_sources("was trained", "Train the run anew.")


def test_weights_are_part_of_what_a_run_is():
    config = resolve("ucf-101")
    assert config.hash("data") != config.starting_from("a" * 64).hash("data")


@pytest.mark.parametrize("name", ["../x", "my/deep", ".hidden", "", "..", "a\\b", "/abs"])
def test_a_data_set_that_is_a_path_is_refused(name):
    with pytest.raises(UsageError, match="not the name of a data set"):
        resolve(name)


def test_a_slash_behind_the_name_is_no_other_data_set():
    assert resolve("synthetic/") == resolve("synthetic")


def test_an_unknown_model_is_refused_before_anything_is_planned():
    for model in ("concatt", "unimodal-../../x"):
        with pytest.raises(UsageError, match=f"no model '{model}'"):
            resolve("synthetic", model=model)


@pytest.fixture(scope="module")
def data(prepared):
    return open_set(prepared / "synthetic")


def small(method="baseline", seed=0, **names):
    return resolve("synthetic", method=method, seed=seed, overrides=SMALL, **names)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """One trained run, which tests copy."""
    root = tmp_path_factory.mktemp("runs")
    folder = RunFolder(root, small(), data, "some-suite")
    train_run(folder, CPU)
    return folder


def copied(trained, root, *place):
    """The trained run as it lies elsewhere."""
    target = root.joinpath(*place)
    target.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", trained.path, target], check=True)
    return target


def test_a_run_lies_where_it_belongs_and_is_found_elsewhere(trained, data, tmp_path):
    own = Places(tmp_path).of(small(), data.content_hash)
    assert own.relative_to(tmp_path).parts[:2] == ("synthetic", "concat")
    assert own.name == f"baseline-paper-s0-{small().hash(data.content_hash)[:8]}"
    old = copied(trained, tmp_path, "demo", "concat", "baseline-paper-s0-0ld0ld00")
    assert Places(tmp_path).of(small(), data.content_hash) == old
    assert Places(tmp_path).of(small(variant="official"), data.content_hash) == old
    for other in (small(seed=1), small("opm"), small(model="sum")):
        assert Places(tmp_path).of(other, data.content_hash) != old
    assert Places(tmp_path).of(small(), "other data") != old
    assert RunFolder(tmp_path, small(), data).path == old


def test_a_run_in_a_folder_renamed_by_hand_is_found(trained, data, tmp_path):
    renamed = copied(trained, tmp_path, "synthetic", "concat", "my best run")
    assert Places(tmp_path).of(small(), data.content_hash) == renamed
    assert Places(tmp_path).of(small(seed=1), data.content_hash) != renamed


def test_a_run_of_a_former_version_is_read_and_not_trained_again(trained, data, tmp_path):
    """Format 1: hashes over all settings, one environment, a suite's folder, no setting that came later."""
    old = copied(trained, tmp_path, "demo", "concat", "baseline-paper-s0-0ld0ld00")
    result = json.loads((old / "result.json").read_text())
    hashes = {"config": "c" * 64, "protocol": "9" * 64, "data": data.content_hash, "splits": data.splits_hash}
    del result["data"], result["config_hash"]
    (old / "result.json").write_text(json.dumps(result | {"format": 1, "hashes": hashes}))
    config = (old / "config.toml").read_text()
    (old / "config.toml").write_text(config.replace("snapshots = 0\n", ""))
    (old / "environment.json").write_text(json.dumps({"version": "0.1.0", "threads": 3}))
    folder = RunFolder(tmp_path, small(), data)
    before = read_run(old).result
    assert before.data.reader is None
    assert (
        folder.path == old and train_run(folder, CPU)["data"]["reader"] == "synthetic"
    )  # by the data it is given
    run = read_run(old)
    assert (
        run.result.selections == before.selections and run.result.time == before.time
    )  # nothing was trained
    assert run.result.hashes.settings == small().hash(data.content_hash, with_seed=False)
    assert [(one.version, one.threads) for one in run.environments] == [("0.1.0", 3)]


def test_an_interrupted_run_of_a_former_version_goes_on(trained, data, tmp_path):
    """Its checkpoint holds the hash of that version, which its result.json has as well."""
    old = copied(trained, tmp_path, "demo", "concat", "baseline-paper-s0-0ld0ld00")
    result = json.loads((old / "result.json").read_text())
    hashes = {"config": "c" * 64, "protocol": "9" * 64, "data": data.content_hash, "splits": data.splits_hash}
    former = result | {"format": 1, "hashes": hashes, "status": "interrupted"}
    (old / "result.json").write_text(json.dumps(former))
    path = checkpoint.checkpoints(old / "checkpoints")[-1]
    state = checkpoint.load_last(old / "checkpoints")
    assert state is not None
    checkpoint.save(old / "checkpoints", int(path.stem.split("-")[1]), state | {"run": "c" * 64})
    assert train_run(RunFolder(tmp_path, small(), data), CPU)["status"] == "finished"
    (old / "result.json").write_text(json.dumps(former))
    checkpoint.save(old / "checkpoints", int(path.stem.split("-")[1]), state | {"run": "d" * 64})
    with pytest.raises(InputError, match="of another run"):
        train_run(RunFolder(tmp_path, small(), data), CPU)


def test_a_run_that_goes_on_under_other_names_keeps_its_own(trained, data, tmp_path):
    """The baseline is the same run in both variants; result.json must not part from config.toml."""
    folder = copied(trained, tmp_path, "synthetic", "concat", trained.path.name)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"status": "interrupted"}))
    train_run(RunFolder(tmp_path, small(variant="official"), data), CPU)
    assert (read_run(folder).result.status, read_run(folder).result.variant) == ("finished", "paper")


def test_each_run_of_two_suites_is_trained_once(bmm, prepared, tmp_path):
    values = "epochs = 1, encoder = 'small', batch_size = 4, 'frames.size' = 32, 'waveform.n_fft' = 128"
    text = 'title = "t"\n[[runs]]\ndatasets = ["synthetic"]\nmethods = [{}]\nseeds = [0]\nsettings = {{ values }}\n'
    text = text.replace("values", values)
    for name, methods in (("one", '"baseline"'), ("two", '"baseline", "opm"')):
        (tmp_path / f"{name}.toml").write_text(text.format(methods))
    places = ["--data", prepared, "--runs", tmp_path / "runs"]
    status, out, _ = bmm("train", "--suite", tmp_path / "one.toml", *places, "--device", "cpu")
    assert status == 0
    status, lines, err = bmm("train", "--suite", tmp_path / "two.toml", "--status", *places)
    assert status == 0 and [line.split()[0] for line in lines.splitlines()] == ["finished", "waiting"]
    assert (
        "# synthetic (default): " in err
        and "epochs=1" in err
        and "# method opm (paper): first_epoch=0" in err
    )
    (folder,) = map(str.strip, out.splitlines())
    collection = collect([tmp_path / "runs"], "last", suite=load_suite(str(tmp_path / "two.toml")))
    assert [str(run.folder) for group in collection.groups for run in group.runs] == [folder]
    status, out, _ = bmm("report", tmp_path / "runs", "--suite", tmp_path / "two.toml", "--format", "csv")
    assert status == 0 and [line.split(",")[1] for line in out.splitlines()[1:]] == ["majority", "concat"]
    (tmp_path / "three.toml").write_text(text.format('"ogm"'))
    status, _, err = bmm("report", tmp_path / "runs", "--suite", tmp_path / "three.toml")
    assert status == 3 and "no runs" in err.lower()


def test_status_and_dry_run_prepare_nothing(bmm, tmp_path):
    places = ["--data", tmp_path / "data", "--runs", tmp_path / "runs"]
    status, out, _ = bmm("train", "--suite", "demo", "--status", *places)
    assert status == 0 and len(out.splitlines()) == 36
    assert all(line.startswith("waiting") and " is not prepared)" in line for line in out.splitlines())
    status, out, _ = bmm("train", "--suite", "demo", "--dry-run", *places)
    assert status == 0 and "# synthetic (default): task=classification, encoder=" in out
    assert not list(tmp_path.iterdir())
    status, _, err = bmm("train", "--dataset", "synthetik", "--status", *places)
    assert status == 2 and "synthetic" in err


def test_the_shipped_suites_plan_many_runs_once():
    planned = [config for name in resources.suites() for config in load_suite(name)[1].configs()]
    once = {(config.dataset, config.hash("")) for config in planned}
    assert (
        len(planned) - len(once) > 100
    )  # each of these was trained twice where suites had folders of their own


def test_a_changed_config_is_noticed(trained, tmp_path):
    folder = copied(trained, tmp_path, "synthetic", "concat", trained.path.name)
    path = folder / "config.toml"
    path.write_text(path.read_text().replace("batch_size = 4", "batch_size = 8"))
    with pytest.raises(InputError, match="was changed after the run was trained"):
        read_run(folder)
    (line,) = collect([tmp_path], "last", may_be_empty=True).left_out
    assert "config.toml" in line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("history.jsonl", '{"loss": 1, "accuracy": {"test": "a"}}'),
        ("history.jsonl", "[" * 200_000),
        ("result.json", '{"format": 2, "status": "finished"}'),
        ("result.json", None),
    ],
)
def test_a_damaged_run_folder_does_not_end_a_status(trained, tmp_path, name, content):
    folder = copied(trained, tmp_path, "synthetic", "concat", trained.path.name)
    (folder / name).unlink()
    if content is None:
        (folder / name).symlink_to(folder / name)
    else:
        (folder / name).write_text(content)
    assert read_status(folder).state == "damaged"


def test_a_result_of_a_newer_format_is_said_to_be_newer(trained, tmp_path):
    folder = copied(trained, tmp_path, "synthetic", "concat", "newer")
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"format": 3}))
    with pytest.raises(InputError, match="Take a newer bmm"):
        read_run(folder)


def test_a_result_without_its_config_is_not_taken_for_this_run(trained, data, tmp_path):
    folder = copied(trained, tmp_path, "synthetic", "concat", trained.path.name)
    (folder / "config.toml").unlink()
    with pytest.raises(InputError, match=r"without its config\.toml"):
        train_run(RunFolder(tmp_path, small(), data), CPU)


def test_runs_behind_a_link_are_found(trained, data, tmp_path):
    copied(trained, tmp_path / "elsewhere", "old", "concat", "baseline-paper-s0-0ld0ld00")
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "concat").symlink_to(tmp_path / "elsewhere" / "old" / "concat")
    (tmp_path / "runs" / "old" / "loop").symlink_to(tmp_path / "runs")
    assert Places(tmp_path / "runs").of(small(), data.content_hash).name == "baseline-paper-s0-0ld0ld00"


@pytest.mark.parametrize("text", ["99999999999999999999", "²", "-1", ""])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="--seeds"):
        parse_seeds(text)


# ---- environments ----------------------------------------------------------------------------------------------


def test_every_environment_is_kept(trained, tmp_path, data):
    folder = copied(trained, tmp_path, "synthetic", "concat", trained.path.name)
    (first,) = read_environments(folder)
    assert (first.suite, first.processes) == ("some-suite", 1)
    again = RunFolder(tmp_path, small(), data, "some-suite")
    assert again.path == folder
    again.write_environment(CPU, 1)
    assert read_environments(folder) == [first]
    again.write_environment(CPU, 2)
    assert [one.processes for one in read_environments(folder)] == [1, 2]
    for damaged in ("{", "[]", '{"environments": 3}'):
        (folder / "environment.json").write_text(damaged)
        again.write_environment(CPU, 2)
        assert [one.processes for one in read_environments(folder)] == [2]


def test_the_commit_is_the_programs_own(tmp_path):
    """A repository around the environment is not the program's."""
    assert resources.checkout_commit(tmp_path) is None
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    inner = tmp_path / "venv" / "site-packages"
    inner.mkdir(parents=True)
    assert resources.checkout_commit(inner) is None


# ---- locks -----------------------------------------------------------------------------------------------------


def test_a_status_poll_never_stops_a_trainer(tmp_path, data):
    folder = RunFolder(tmp_path, small(), data)
    with folder.open():
        assert is_locked(folder.path)
    assert not is_locked(folder.path)
    with (folder.path / ALIVE).open() as poll:
        fcntl.flock(poll, fcntl.LOCK_SH)  # as is_locked does, but for as long as a busy machine takes
        with ThreadPoolExecutor(1) as pool:
            entered = pool.submit(_open_and_close, folder)
            assert not entered.done()
            fcntl.flock(poll, fcntl.LOCK_UN)
            assert entered.result(timeout=30)


def _open_and_close(folder):
    with folder.open():
        return True


def test_another_trainer_is_refused(tmp_path, data):
    folder = RunFolder(tmp_path, small(), data)
    with folder.open(), (folder.path / LOCK).open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_two_evaluations_at_once_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from balancemm_cli.runs.evaluation import *\n"
        "from balancemm_cli.runs.schema import Metrics\n"
        "one = Metrics(accuracy=0.5, map=0.5, macro_f1=0.5)\n"
        "for number in range(25):\n"
        "    name = f'{sys.argv[2]}{number}'\n"
        "    found = RunEvaluation(checkpoint='c', epochs=1, test=one, disturbed={name: one})\n"
        "    keep(Path(sys.argv[1]), found)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], env={**os.environ}) for name in "ab"]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    found = read_evaluation(tmp_path)
    assert found is not None and len(found.disturbed) == 50


def test_an_evaluation_keeps_what_was_there(tmp_path):
    one = Metrics(accuracy=0.5, map=0.5, macro_f1=0.5)
    keep(tmp_path, RunEvaluation(checkpoint="c", epochs=1, test=one, noise={}))
    keep(tmp_path, RunEvaluation(checkpoint="c", epochs=1, test=one, probe={1: {"audio": 0.5}}))
    found = read_evaluation(tmp_path)
    assert found is not None and found.noise == {} and found.probe == {1: {"audio": 0.5}}


def test_an_unfinished_run_is_evaluated_as_one(bmm, trained, tmp_path, prepared):
    folder = copied(trained, tmp_path, "synthetic", "concat", trained.path.name)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"status": "interrupted"}))
    status, _, err = bmm("eval", folder, "--data", prepared, "--device", "cpu")
    assert status == 0 and "is not finished (interrupted): this is its state after 1 epochs" in err


def test_the_config_of_a_run_is_its_own(trained):
    assert read_config(trained.path / "config.toml") == small()


def test_configurations_that_differ_in_the_seed_alone_are_read_as_they_are(tmp_path):
    """One of them is parsed for all."""
    for seed in (0, 3, 14):
        write_run(tmp_path, "opm", seed)
    runs, unreadable = read_all([tmp_path])
    assert unreadable == [] and sorted(run.result.seed for run in runs) == [0, 3, 14]
    for run in runs:
        assert run.config == read_config(run.folder / "config.toml") and run.config.seed == run.result.seed
