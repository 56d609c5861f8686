"""`bmm tune`: what is searched, that no trial reads a test sample, and that a killed search chooses the same."""

import json
import math
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import qmc
from scipy.stats.qmc import Halton
from test_resume import assert_same_run

from balancemm_cli.config.recipe import keys
from balancemm_cli.config.run import resolve
from balancemm_cli.config.spaces import SHARED, Dimension, draws, space_of, spaces, without_space
from balancemm_cli.data.datasets.plan import features
from balancemm_cli.data.folds import fold_name
from balancemm_cli.data.store import open_set, write_shard
from balancemm_cli.engine import PRELOADED
from balancemm_cli.engine.launch import Job, run_job
from balancemm_cli.engine.run_evaluation import evaluate_run
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.base import EpochRange
from balancemm_cli.results.collection import collect
from balancemm_cli.runs.folder import read_result
from balancemm_cli.runs.places import Places
from balancemm_cli.runs.reading import read_history
from balancemm_cli.runs.search import (
    RUNGS,
    Budget,
    Question,
    Search,
    Trial,
    Value,
    candidates,
    half,
    parse_budget,
    read_search,
    read_searches,
)
from balancemm_cli.testing import small
from balancemm_cli.testing.sets import CLASSES, finish

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)
SPLITS = {"train": 32, "val": 48, "test": 16}
FAST = (("epochs", 4), ("batch_size", 16), ("optimizer.lr", 0.05), ("encoders.vectors", "mlp"))


def write_set(folder, counts=SPLITS):
    """A prepared set of two modalities of noisy numbers, of which a network learns something in few epochs."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    modalities = {"a": features(1, 6), "b": features(1, 4)}
    for split, rows in counts.items():
        write_shard(folder / f"{split}-00000.arrow", _rows(split, rows, generator), modalities)
    return finish(folder, folder.name, modalities, {}, counts)


def _rows(split, count, generator):
    for index in range(count):
        label = index % len(CLASSES)
        values = {"a": (1, 6, 0.9), "b": (1, 4, 0.5)}
        drawn = {
            name: (strength * (np.arange(width) == label) + generator.normal(0, 0.5, (length, width))).astype(
                "float32"
            )
            for name, (length, width, strength) in values.items()
        }
        yield {"id": f"{split}-{index}", "label": label, **drawn}


@pytest.fixture
def data(tmp_path):
    return write_set(tmp_path / "data" / "mine").folder


def draw(space, config, seed, number):
    """The settings of one trial."""
    return next(islice(draws(space, config, seed), number, None))


def search_of(folder, runs, method="opm", seed=0, budget="3", kind="quasi-random", changes=FAST):
    question = Question("mine", "concat", method, "paper", None, changes)
    base = question.config(seed, {})
    space = space_of(base, fixed=dict(one for one in changes if "lr" in one[0]))
    return Search(
        question, seed, space, parse_budget(budget), kind, Places(runs), open_set(folder).content_hash
    )


def complete(search, folder, at_once=1, told=lambda _: None):
    """Train the trials of a search in this process; the numbers of those that were begun, in order."""
    begun = []
    while waiting := search.pending(at_once):
        for trial, epochs in waiting:
            job = Job(trial.config, folder, search.places.root, None, "cpu", place=trial.folder, until=epochs)
            try:
                run_job(job, lambda _, event: told(event), lambda _: None)
            except InputError as error:
                assert "not finite" in str(error)
            begun.append(trial.number)
    return begun


# ---- spaces ---------------------------------------------------------------------------------------------------------


def tunable(name):
    return {*keys(METHODS[name].Settings)} - {*keys(EpochRange)}


def test_every_method_with_settings_has_a_space_and_each_key_and_end_is_one_that_runs_take():
    ours = [name for name, method in METHODS.items() if method.__module__.startswith("balancemm_cli.")]
    assert {*spaces()} == {SHARED, "mmcosine", *(name for name in ours if tunable(name))}
    for name in ours:
        config = resolve("synthetic", method=name)
        for variant in ("paper", "official"):
            question = Question("synthetic", "concat", name, variant, None)
            search = Search(
                question, 0, space_of(config), Budget(trainings=2), "quasi-random", Places(Path("none")), ""
            )
            changed = search.trial(1).config
            assert changed.settings.tested_on == "val"
            for key, value in search.trial(1).settings.items():
                assert changed.by_key[key] == value, key


def test_the_space_of_a_model_counts_for_each_method_on_it():
    for method in ("baseline", "ogm"):
        spaces_of = [{*space_of(resolve("synthetic", model, method))} for model in ("concat", "mmcosine")]
        assert spaces_of[1] - spaces_of[0] == {"mmcosine.scale"}


# The speeds that greedy and its adaptation compare are further apart in these few steps than any tolerance. Of lfm's
# fitted weight nothing is to be searched; mslr's window has first to be full, and relearning comes epochs later.
@pytest.mark.parametrize(
    "method",
    [
        name
        for name, one in METHODS.items()
        if one.VARIANTS["official"]
        and name not in ("greedy", "greedy-adaptation", "lfm", "mslr", "relearning")
    ],
)
def test_each_setting_that_is_searched_under_the_official_variant_changes_the_training(method):
    case = small.tried(method, "official", "vectors")
    config = resolve("manifest", case.model, method, "official", overrides=case.settings)
    own = {key: one for key, one in space_of(config).items() if key.startswith(f"{method}.")}
    assert own
    for key, dimension in own.items():
        ends = [dimension.at(share, config.by_key.get(key)) for share in (0.0, math.nextafter(1, 0))]
        settings = [(*case.settings, f"{key}={value}") for value in ends]
        one, other = (small.trained(replace(case, settings=given), steps=8)[1] for given in settings)
        assert any(not torch.equal(one[name], other[name]) for name in one), key


def test_what_changes_nothing_is_not_searched(tmp_path):
    paper, official = (resolve("synthetic", method="pmr", variant=name) for name in ("paper", "official"))
    assert {*space_of(paper)} - {*space_of(official)} == {"pmr.mu"}
    path = tmp_path / "mine.toml"
    path.write_text('"pmr.mu" = {range = [0.1, 1.0]}\n"pmr.alpha" = {range = [0.1, 1.0]}\n')
    assert [*space_of(official, path)] == ["pmr.alpha"]
    path.write_text('"pmr.mu" = {range = [0.1, 1.0]}\n"pmr.entropy_epochs" = {values = [0, 5]}\n')
    assert [*space_of(official, path)] == ["pmr.mu", "pmr.entropy_epochs"]
    given = resolve("synthetic", method="lfm", variant="official")
    assert [*space_of(given)] == [*space_of(resolve("synthetic"))]
    given = resolve("synthetic", method="g-blending", overrides=["g-blending.weights=[1, 1, 1]"])
    assert [*space_of(given)] == [*space_of(resolve("synthetic"))]


def test_a_method_that_would_begin_after_the_last_epoch_of_every_trial_is_not_searched():
    def searched(*overrides):
        space = space_of(resolve("synthetic", method="opm", variant="official", overrides=overrides))
        return [key for key in space if key.startswith("opm.")]

    assert searched("epochs=4") == []  # at most 6, and OPM begins in the seventh
    assert searched("epochs=5") == searched("epochs=4", "opm.first_epoch=2") == ["opm.q_base", "opm.lam"]


def test_a_method_of_another_package_brings_its_space(monkeypatch):
    shared = {SHARED: spaces()[SHARED]}
    monkeypatch.setattr("balancemm_cli.config.spaces.spaces", lambda: shared)
    monkeypatch.setattr(METHODS["opm"], "SPACE", {"q_base": {"range": [0.1, 0.9]}})
    config = resolve("synthetic", method="opm")
    assert space_of(config)["opm.q_base"].range == (0.1, 0.9) and not without_space(config)
    monkeypatch.setattr(METHODS["opm"], "SPACE", {"q_bas": {"range": [0.1, 0.9]}})
    with pytest.raises(UsageError, match=r"'opm.q_bas'.*SPACE of method opm"):
        space_of(config)


def test_ranges_are_those_of_the_papers():
    config = resolve("synthetic", method="opm+ogm")
    space = space_of(config)
    assert [*space][:3] == ["optimizer.lr", "optimizer.weight_decay", "epochs"]
    for key in ("opm.q_base", "opm.lam", "ogm.alpha"):
        assert space[key].range == (0.2, 0.6)
    assert space["optimizer.lr"].bounds(config.settings.optimizer.lr) == pytest.approx((0.002, 0.2))


def test_draws_stay_within_their_bounds_and_fill_them():
    config = resolve("synthetic", method="greedy")
    space = space_of(config)
    drawn = [draw(space, config, 0, number) for number in range(1, 65)]
    for key, dimension in space.items():
        low, high = dimension.bounds(config.by_key[key])
        values = [one[key] for one in drawn]
        assert low <= min(values) and max(values) <= high
        middle = (low * high) ** 0.5 if dimension.scale == "log" else (low + high) / 2
        assert 0.4 < np.mean(np.array(values) < middle) < 0.6  # as many below the middle as above
    assert all(isinstance(one["greedy.window"], int) and isinstance(one["epochs"], int) for one in drawn)


def test_a_draw_depends_on_seed_space_and_number_alone_and_methods_share_what_all_have():
    baseline, opm = (resolve("synthetic", method=name) for name in ("baseline", "opm"))
    assert draw(space_of(opm), opm, 0, 0) == {}
    ahead = [draw(space_of(opm), opm, 0, number) for number in range(1, 6)]
    assert len({json.dumps(one) for one in ahead}) == 5
    assert draw(space_of(opm), opm, 0, 4) == ahead[3] != draw(space_of(opm), opm, 1, 4)
    assert draw(space_of(baseline), baseline, 0, 4).items() < ahead[3].items()


def test_what_is_given_is_not_searched(tmp_path):
    config = resolve("synthetic", method="opm")
    assert "optimizer.lr" not in space_of(config, fixed={"optimizer.lr": 0.1})
    path = tmp_path / "mine.toml"
    path.write_text('"opm.q_base" = {values = [0.1, 0.9]}\n"ogm.alpha" = {range = [0, 1]}\n')
    assert [*space_of(config, path)] == ["opm.q_base"]  # the run has no OGM
    with pytest.raises(UsageError, match="Nothing is left to search"):
        space_of(config, path, {"opm.q_base": 0.3})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"opm.qbase" = {range = [0.2, 0.6]}', "Did you mean 'opm.q_base'"),
        ('"tested_on" = {values = ["val", "test"]}', "no key to search 'tested_on'"),
        ('"opm.q_base" = {range = [0.6, 0.2]}', "mine.toml: the first number must be below the second"),
        ('"opm.q_base" = {range = [0, 0.6], scale = "log"}', "must be above 0"),
        ('"opm.q_base" = {range = [0.2, 0.6], factor = [1, 2]}', "one of range, factor and values"),
        ('"opm.q_base" = {ranges = [0.2, 0.6]}', "Did you mean 'range'"),
        ('"opm.q_base" = 0.4', "takes a table"),
        ('"opm.q_base" = {values = [0.2, 0.2]}', "two or more, each once"),
        ('"ogm.alpha" = {range = [0.2, 0.6]}', "no setting of it that is not given"),
    ],
)
def test_a_wrong_space_is_refused_in_a_sentence(tmp_path, line, said):
    path = tmp_path / "mine.toml"
    path.write_text(line + "\n")
    with pytest.raises(UsageError, match=said):
        space_of(resolve("synthetic", method="opm"), path)


def test_a_space_that_reaches_beyond_a_setting_is_refused_before_anything_is_trained(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('"opm.q_base" = {range = [0.2, 1.6]}\n')
    question = Question("synthetic", "concat", "opm", "paper", None)
    space = space_of(question.config(0, {}), path)
    with pytest.raises(UsageError, match=r"reaches too far.*'opm.q_base'.*less than or equal to 1"):
        Search(question, 0, space, Budget(trainings=2), "quasi-random", Places(tmp_path), "")


def test_a_value_in_the_middle_that_no_run_takes_is_refused_before_anything_is_trained(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('"opm.q_base" = {values = [0.1, 0.3, 1.5, 0.5]}\n"epochs" = {values = [5, 6]}\n')
    question = Question("synthetic", "concat", "opm", "paper", None)
    space = space_of(question.config(0, {}), path)
    with pytest.raises(UsageError, match=r"'opm.q_base'.*less than or equal to 1"):
        Search(question, 0, space, parse_budget("9s"), "quasi-random", Places(tmp_path), "")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ('["mlp", "mlpp"]', "no encoder 'mlpp' (of 'vectors')"),
        ('["mlp", "bag"]', "Encoder bag does not fit 'a', which is one of the vectors."),
    ],
)
def test_an_encoder_that_no_run_takes_is_refused_before_anything_is_trained(
    bmm, data, tmp_path, values, said
):
    path = tmp_path / "mine.toml"
    path.write_text(f'"encoders.vectors" = {{values = {values}}}\n')
    runs = tmp_path / "runs"
    places = ["--data", data.parent, "--runs", runs, "--device", "cpu", "--space", path]
    status, _, err = bmm("tune", "--dataset", data.name, *places, "--set", "epochs=1", "--budget", "1")
    assert status == 2 and said in " ".join(err.split())
    assert not runs.exists()


def test_the_points_of_a_large_budget_are_drawn_once_and_are_those_of_the_sequence(monkeypatch):
    drawn = []

    class Counted(Halton):
        def random(self, n=1, **given):
            drawn.append(n)
            return super().random(n, **given)

    config = resolve("synthetic", method="opm")
    space = space_of(config)
    points = Halton(len(space), scramble=True, seed=3).random(40)
    monkeypatch.setattr(qmc, "Halton", Counted)
    found = list(islice(draws(space, config, 3), 41))
    expected = [
        {
            key: one.at(share, config.by_key[key])
            for (key, one), share in zip(space.items(), point, strict=True)
        }
        for point in points
    ]
    assert found == [{}, *expected] and sum(drawn) == 40


def test_a_number_is_whole_where_the_setting_is():
    whole_ends, other_ends = Dimension(range=(0, 1)), Dimension(range=(10.0, 40.0))
    assert whole_ends.at(0.3, 0.5) == 0.3 and whole_ends.at(0.3, None) == 0
    assert isinstance(other_ends.at(0.123, 64), int) and other_ends.at(0.123, 64) == 14


def test_the_seconds_of_a_trial_are_read_once_a_look(tmp_path, monkeypatch):
    """A quick method has hundreds of trials under a budget in seconds."""
    read = []
    monkeypatch.setattr(Trial, "value", lambda self, share=1.0: Value(0.5, 1.0) if self.number < 60 else None)
    monkeypatch.setattr(Trial, "seconds", property(lambda self: read.append(self.number) or 1.0))
    question = Question("synthetic", "concat", "opm", "paper", None)
    space = space_of(question.config(0, {}))
    search = Search(question, 0, space, parse_budget("100s"), "quasi-random", Places(tmp_path), "")
    ((trial, _),) = search.pending()
    assert trial.number == 60 and sorted(read) == [*range(60)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "."), "is a folder"),
        (("--out", "none/tuned.toml"), "there is no folder none"),
        (("--set", "tested_on=test"), "--set tested_on would change nothing"),
    ],
)
def test_what_would_be_in_vain_is_refused_before_anything_is_trained(data, tmp_path, bmm, words, said):
    status, _, error = bmm(*command(data, tmp_path / "runs"), *words)
    assert status == 2 and said in error and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["0", "-1", "20m", "1.5", "", "99999", "0s"])
def test_a_wrong_budget_is_refused(text):
    with pytest.raises(UsageError, match="--budget"):
        parse_budget(text)


def test_an_override_comes_before_a_recipe_s_table_of_the_variant(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[opm.official]\nq_base = 0.2\n")
    for variant in ("paper", "official"):
        given = resolve(
            "synthetic", method="opm", variant=variant, recipe=str(recipe), overrides=["opm.q_base=0.4"]
        )
        assert given.methods["opm"]["q_base"] == 0.4


# ---- trials ---------------------------------------------------------------------------------------------------------


def test_no_trial_reads_a_test_sample(data, tmp_path):
    """Neither by accident nor for a hash: the shards are not there."""
    for shard in data.glob("test-*.arrow"):
        shard.unlink()
    for kind in ("quasi-random", "halving"):
        search = search_of(data, tmp_path / "runs", "g-blending", kind=kind, budget="2")
        complete(search, data)
        assert search.chosen and search.write()
    with pytest.raises(InputError, match="test-00000"):
        run_job(
            Job(search.question.config(0, {}), data, tmp_path / "runs", None, "cpu"), *[lambda *_: None] * 2
        )


def test_a_trial_is_the_run_up_to_the_samples_that_it_is_tested_on(data, tmp_path):
    """Same weights after each epoch: what the run reached on validation samples is what the trial calls its test."""
    search = search_of(data, tmp_path, "g-blending", budget="1")
    complete(search, data)
    trial = search.chosen
    run = Job(search.question.config(0, trial.settings), data, tmp_path, None, "cpu")
    run_job(run, *[lambda *_: None] * 2)
    assert run.folder().path != trial.folder
    for of_run, of_trial in zip(read_history(run.folder().path), read_history(trial.folder), strict=True):
        assert of_trial.accuracy == {"val": of_run.accuracy["val"], "test": of_run.accuracy["val"]}
        assert of_trial.loss == of_run.loss and of_trial.losses["test"] == of_run.losses["val"]
    assert read_result(trial.folder)["samples"]["test"] == [SPLITS["val"]] * 2


def test_a_trial_is_in_no_report_and_is_not_evaluated(data, tmp_path):
    search = search_of(data, tmp_path, budget="2")
    complete(search, data)
    with pytest.raises(InputError, match=r"No finished run.*trials of `bmm tune` \(2\)"):
        collect([tmp_path], "last")
    job = Job(search.question.config(0, {}), data, tmp_path, None, "cpu")
    run_job(job, *[lambda *_: None] * 2)
    collection = collect([tmp_path], "last")
    assert [run.folder for group in collection.groups for run in group.runs] == [job.folder().path]
    assert collection.left_out == ["trials of `bmm tune` (2), whose numbers are of validation samples."]
    with pytest.raises(InputError, match="is a trial of a search"):
        evaluate_run(search.chosen.folder, data.parent, "cpu")


def test_a_trial_that_calls_itself_tested_is_refused(data, tmp_path):
    search = search_of(data, tmp_path, budget="1")
    complete(search, data)
    path = search.chosen.folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tested_on": "test"}))
    with pytest.raises(InputError, match="differ in 'tested_on'"):
        collect([tmp_path], "last")


def test_of_a_set_without_validation_samples_a_fifth_of_the_training_samples_is_held_out(tmp_path):
    prepared = write_set(tmp_path / "mine", {"train": 40, "test": 8})
    trial = prepared.for_run(3, "val")
    train, held_out = trial.split("train"), trial.split("test")
    assert sorted(train.ids + held_out.ids) == sorted(prepared.split("train").ids)
    assert trial.counts == {"train": len(train), "test": len(held_out)} == {"train": 31, "test": 9}
    assert np.bincount(held_out.labels).max() - np.bincount(held_out.labels).min() <= 1  # of each class alike
    whole = prepared.split("train")
    for part in (train, held_out):
        for place, name in enumerate(part.ids):
            row = whole.ids.index(name)
            assert part.labels[place] == whole.labels[row] and part.holders("a")[place] == row
    assert prepared.for_run(4, "val").split("test").ids == held_out.ids  # the same for each seed
    (tmp_path / "mine" / "test-00000.arrow").unlink()
    assert prepared.for_run(3, "val").split("test").ids == held_out.ids


def test_samples_that_share_a_stored_value_are_held_out_together(tmp_path):
    modalities = {"a": features(1, 1)}
    stored = np.ones((1, 1), "float32")
    rows = [
        {"id": str(row), "label": 0, "a": None if row % 4 else stored * row} for row in range(40)
    ]  # four samples of one medium
    write_shard(tmp_path / "train-00000.arrow", rows, modalities)
    write_shard(tmp_path / "test-00000.arrow", rows[:4], modalities)
    trial = finish(tmp_path, "mine", modalities, {}, {"train": 40, "test": 4}).for_run(0, "val")
    media = {name: {int(one) // 4 for one in trial.split(name).ids} for name in ("train", "test")}
    assert len(media["test"]) == 2 and len(media["train"]) == 8  # so none is in both
    split = trial.split("test")
    for name, holder in zip(split.ids, split.holders("a"), strict=True):
        assert split.array("a", holder).item() == int(name) // 4 * 4


def test_too_few_samples_to_hold_some_out_are_refused(tmp_path, bmm):
    write_set(tmp_path / "data" / "mine", {"train": 1, "test": 8})
    status, _, error = bmm(
        "tune", "--dataset", "mine", "--data", tmp_path / "data", "--runs", tmp_path / "runs"
    )
    assert status == 3 and "no validation samples" in error and "too few training samples" in error


def test_a_method_that_looks_at_validation_samples_is_refused_first_where_there_are_none(tmp_path, bmm):
    write_set(tmp_path / "data" / "mine", {"train": 40, "test": 8})
    given = ("--dataset", "mine", "--data", tmp_path / "data", "--runs", tmp_path / "runs")
    for command in ("tune", "train"):
        status, _, error = bmm(command, *given, "--method", "relearning")
        assert status == 3 and "relearning looks at validation samples" in error
    assert not (tmp_path / "runs").exists()


def test_a_place_where_no_run_can_be_written_is_refused_first(data, bmm):
    for command in ("tune", "train"):
        status, _, error = bmm(command, "--dataset", "mine", "--data", data.parent, "--runs", "/proc/none")
        assert status == 3 and "Check the path" in error and "trial" not in error


# ---- the search -----------------------------------------------------------------------------------------------------


def test_the_best_on_validation_samples_is_chosen(data, tmp_path):
    search = search_of(data, tmp_path, budget="5")
    assert complete(search, data) == [0, 1, 2, 3, 4] and complete(search, data) == []
    reached = {}
    for number in range(5):
        last = read_history(search.trial(number).folder)[-1]
        reached[number] = (-last.accuracy["test"], last.losses["test"], number)
    assert search.chosen.number == min(reached, key=reached.get)
    written, record = search.write(), read_search(search.folder)
    assert written.model_dump() == record.model_dump()
    assert record.best.accuracy == -min(reached.values())[0] and record.best.run in str(search.chosen.folder)
    final = search.question.config(3, search.chosen.settings)
    found, lines = read_searches([tmp_path])
    assert not lines and found == {final.hash(open_set(data).content_hash, with_seed=False): [record]}
    assert "5 settings, 5 trainings; chosen: " in record.in_words()


def test_a_larger_budget_goes_on_from_a_smaller_one(data, tmp_path):
    small = search_of(data, tmp_path, budget="2")
    complete(small, data)
    small.write()
    large = search_of(data, tmp_path, budget="4")
    assert complete(large, data) == [2, 3]
    assert large.folder != small.folder and read_search(small.folder).trials == large.record().trials[:2]


def test_a_budget_of_seconds_counts_what_the_trials_took(data, tmp_path, monkeypatch):
    """Trials of 2, 3, 4, … s: those that begin before 9 s are over count, also where two were trained at a time."""
    monkeypatch.setattr("balancemm_cli.runs.search.Trial.seconds", property(lambda one: 2.0 + one.number))
    search = search_of(data, tmp_path / "one", budget="9s")
    assert complete(search, data) == [0, 1, 2]
    at_once = search_of(data, tmp_path / "two", budget="8s")
    assert complete(at_once, data, at_once=2) == [0, 1, 2, 3]
    assert [one.number for one in at_once.trials] == [0, 1, 2]
    assert len(search.record().trials) == 3
    with pytest.raises(UsageError, match="halving"):
        search_of(data, tmp_path, budget="9s", kind="halving")


def test_the_seconds_of_a_run_that_diverges_count(data, tmp_path):
    search = search_of(data, tmp_path, budget="1", changes=(*FAST, ("optimizer.lr", 1e30)))
    complete(search, data)
    assert read_result(search.trial(0).folder)["status"] == "diverged" and search.trial(0).seconds > 0
    with pytest.raises(InputError, match=r"Every trial .* diverged"):
        search.write()


def test_a_loss_may_be_as_large_as_a_number_of_float32(data, tmp_path):
    """That of a trial which is about to diverge; the record of the search has it, and can be read."""
    search = search_of(data, tmp_path, budget="2")
    complete(search, data)
    path = search.trial(1).folder / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["losses"]["test"] = float(np.finfo(np.float32).max)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    search.write()
    assert read_search(search.folder).trials[1].loss == lines[-1]["losses"]["test"]


def test_a_diverged_trial_is_the_worst(data, tmp_path):
    path = tmp_path / "space.toml"
    path.write_text('"optimizer.lr" = {values = [1e30, 0.05]}\n')
    question = Question("mine", "concat", "baseline", "paper", None, (*FAST[:2], FAST[3]))
    space = space_of(question.config(0, {}), path)
    search = Search(
        question, 0, space, Budget(trainings=4), "quasi-random", Places(tmp_path), open_set(data).content_hash
    )
    complete(search, data)
    record = search.record()
    assert {one.diverged for one in record.trials} == {True, False} and not record.best.diverged
    assert [one.diverged for one in record.trials] == [
        one.settings.get("optimizer.lr") == 1e30 for one in record.trials
    ]


def test_halving_trains_the_better_half_further(data, tmp_path):
    search = search_of(data, tmp_path, budget="3", kind="halving")
    assert (candidates(3, 4), candidates(20, 4)) == (5, 40)
    begun = complete(search, data)
    assert begun[:5] == [0, 1, 2, 3, 4] and len(begun) == 5 + 3 + 2

    def best(numbers, share):
        at = {
            number: read_history(search.trial(number).folder)[search.trial(number).epochs(share) - 1]
            for number in numbers
        }
        ranked = sorted(numbers, key=lambda one: (-at[one].accuracy["test"], at[one].losses["test"], one))
        return ranked[: half(len(ranked))]

    second = best(range(5), 1 / 4)
    third = best(second, 1 / 2)
    assert sorted(begun[5:8]) == sorted(second) and sorted(begun[8:]) == sorted(third)
    assert search.chosen.number == best(third, 1)[0]
    trained = {number: read_result(search.trial(number).folder)["epochs"] for number in range(5)}
    for number in range(5):
        share = 1 if number in third else 1 / 2 if number in second else 1 / 4
        assert trained[number] == search.trial(number).epochs(share) == search.record().trials[number].epochs


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 20, 30])
def test_halving_costs_no_more_than_its_budget(epochs):
    """Whole epochs are trained, so that a quarter of one epoch is one."""

    def cost(sizes):
        return np.dot(sizes, np.diff([0, *(math.ceil(share * epochs) for share in RUNGS)]))

    def rungs(first):
        return [first, half(first), half(half(first))]

    for trainings in range(1, 60):
        first = candidates(trainings, epochs)
        assert cost(rungs(first)) <= trainings * epochs < cost(rungs(first + 1))


def test_a_trial_that_stopped_at_its_rung_ends_as_one_that_did_not(data, tmp_path):
    folders = []
    for name, stops in (("halved", (1, 2, None)), ("whole", (None,))):
        search = search_of(data, tmp_path / name, "opm+ogm")
        for until in stops:
            job = Job(search.trial(0).config, data, tmp_path / name, None, "cpu", until=until)
            result = run_job(job, *[lambda *_: None] * 2)
            assert result["epochs"] == (until or 4)
            assert result["status"] == ("interrupted" if until else "finished")
        folders.append(job.folder().path)
    assert_same_run(*folders)


def test_two_draws_that_are_one_run_are_trained_once(data, tmp_path):
    path = tmp_path / "space.toml"
    path.write_text('"epochs" = {range = [2, 3]}\n')
    question = Question("mine", "concat", "baseline", "paper", None, FAST)
    space = space_of(question.config(0, {}), path)
    search = Search(
        question, 0, space, Budget(trainings=5), "quasi-random", Places(tmp_path), open_set(data).content_hash
    )
    assert len({trial.folder for trial, _ in search.pending()}) == len(search.pending()) == 3
    assert len(complete(search, data)) == 3 and len(search.record().trials) == 5


def test_a_record_that_was_changed_is_refused(data, tmp_path):
    search = search_of(data, tmp_path, budget="2")
    complete(search, data)
    search.write()
    path = search.folder / "search.json"
    content = json.loads(path.read_text())
    for number, change in zip(
        count(), ({"chosen": 1 - content["chosen"]}, {"chosen": 7}, {"format": 2}), strict=False
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(InputError, match=r"search\.json"):
            read_search(search.folder)
        assert len(read_searches([tmp_path])[1]) == 1, number
    path.write_text(json.dumps(content))
    assert read_search(search.folder).chosen == content["chosen"]


def test_a_record_that_was_sealed_again_must_agree_with_its_trials(data, tmp_path):
    search = search_of(data, tmp_path, budget="2")
    complete(search, data)
    record = search.write()
    best = record.best.model_copy(update={"accuracy": 1.0})
    trials = [best if one is record.best else one for one in record.trials]
    for changes, said in (
        ({"trials": trials}, "did not reach 100.00 %"),
        ({"chosen": 1 - record.chosen}, "another one was better"),
        ({"trials": [record.trials[1]] * 2, "chosen": 0}, r"first trial|trial 0 has other settings"),
        ({"space": {**record.space, "opm.lam": {"range": [0.0, 1.0]}}}, "trial 1 has other settings"),
        ({"seed": 1}, "first trial is of another run"),
    ):
        changed = record.model_copy(update=changes)
        sealed = changed.model_copy(update={"fingerprint": changed.computed_fingerprint})
        (search.folder / "search.json").write_text(sealed.model_dump_json())
        with pytest.raises(InputError, match=said):
            read_search(search.folder)


def test_a_run_that_was_tested_on_test_samples_is_no_trial(data, tmp_path):
    search = search_of(data, tmp_path, budget="2")
    complete(search, data)
    record = search.write()
    config = tmp_path / record.trials[1].run / "config.toml"
    config.write_text(config.read_text().replace('tested_on = "val"\n', ""))
    with pytest.raises(InputError, match="is no trial"):
        read_search(search.folder)


def test_halving_that_was_sealed_again_has_a_choice_of_those_trained_to_their_end(data, tmp_path):
    search = search_of(data, tmp_path, budget="3", kind="halving")
    complete(search, data)
    record = search.write()
    assert read_search(search.folder).chosen == record.chosen
    longest = max(one.epochs for one in record.trials)
    short = next(at for at, one in enumerate(record.trials) if one.epochs < longest)
    unsigned = record.model_copy(update={"chosen": short})
    sealed = unsigned.model_copy(update={"fingerprint": unsigned.computed_fingerprint})
    (search.folder / "search.json").write_text(sealed.model_dump_json())
    with pytest.raises(InputError, match=r"not trained to its end|another one was better"):
        read_search(search.folder)


# ---- folds ----------------------------------------------------------------------------------------------------------


def test_nested_folds(tmp_path):
    folds = write_set(tmp_path / "data" / "mine", {fold_name(number): 12 for number in (1, 2, 3, 4)})
    for seed in range(5):
        trial, final = folds.for_run(seed, "val"), folds.for_run(seed)
        chosen_by, tested = {*trial.split("test").ids}, {*final.split("test").ids}
        assert chosen_by == {*folds.for_run(seed + 1).split("test").ids}
        seen = {*trial.split("train").ids} | chosen_by
        assert len(seen) == 36 and not seen & tested and not chosen_by & {*trial.split("train").ids}
        assert trial.counts == {"train": 24, "test": 12}
    search = search_of(folds.folder, tmp_path / "runs", seed=1, budget="2")
    (folds.folder / "fold-2-00000.arrow").unlink()  # of seed 1: tested on
    complete(search, folds.folder)
    assert search.write().seed == 1
    two = write_set(tmp_path / "data" / "two", {fold_name(number): 12 for number in (1, 2)})
    with pytest.raises(InputError, match="has 2 folds, and a search needs a third"):
        two.for_run(0, "val")


def test_the_command_searches_for_each_fold(tmp_path, bmm):
    write_set(tmp_path / "data" / "mine", {fold_name(number): 12 for number in (1, 2, 3)})
    places = ("--data", tmp_path / "data", "--runs", tmp_path / "runs", "--device", "cpu", "--threads", "1")
    words = (
        "tune",
        "--dataset",
        "mine",
        *(word for key, value in FAST[:2] for word in ("--set", f"{key}={value}")),
        "--budget",
        "2",
    )
    status, out, _ = bmm(*words, "--seeds", "0-1", *places, "--jobs", "2")
    assert status == 0 and "Nested folds" in out and out.count("search.json") == 2
    (row,) = (line for line in out.splitlines() if line.startswith("| baseline"))
    assert "| 4 " in row and row.count("(2)") == 2  # four trials; mean over two folds, of both
    found, _ = read_searches([tmp_path / "runs"])
    assert sorted(record.seed for records in found.values() for record in records) == [0, 1]


def test_what_was_tuned_fold_by_fold_is_one_row(tmp_path, bmm):
    write_set(tmp_path / "data" / "mine", {fold_name(number): 12 for number in (1, 2, 3)})
    (tmp_path / "mine.toml").write_text(SUITE.replace(', "wikipedia"', ""))
    places = ("--data", tmp_path / "data", "--runs", tmp_path / "runs", "--device", "cpu", "--threads", "1")
    status, out, error = bmm("tune", "--suite", tmp_path / "mine.toml", "--budget", "3", *places)
    assert status == 0, error
    found, _ = read_searches([tmp_path / "runs"])
    chosen = {record.method: set() for records in found.values() for record in records}
    for record in (record for records in found.values() for record in records):
        chosen[record.method].add(record.settings_hash)
    assert len(chosen["opm"]) == 2  # else this shows nothing
    rows = json.loads(bmm("report", tmp_path / "runs", "--format", "json")[1])
    assert (
        len(rows) == len({(row["model"], row["method"]) for row in rows}) == 6
    )  # with ensemble and majority
    for row in rows:
        assert row["seeds"] == [0, 1]
        if row["model"] not in ("majority", "ensemble"):
            assert row["rules"]["tuned"] is None, row["rules"]
    opm = next(row for row in rows if row["method"] == "opm")
    assert opm["hashes"]["settings"] == "per seed" and opm["gain"]["tuned"] and opm["gain"]["n"] == 2
    status, out, _ = bmm("report", tmp_path / "runs", "--format", "markdown")
    assert status == 0 and "=per seed" in out
    (tmp_path / "report").mkdir()
    status, out, _ = bmm("report", tmp_path / "runs", "--out", tmp_path / "report")
    written = "".join(path.read_text() for path in (tmp_path / "report").glob("*.md"))
    again = [
        line for line in written.splitlines() if line.strip().startswith("bmm train") and " opm " in line
    ]
    assert len(again) == 2 and "per seed" not in "".join(again)


# ---- the command ----------------------------------------------------------------------------------------------------


def command(data, runs, *words):
    settings = [word for key, value in FAST if "lr" not in key for word in ("--set", f"{key}={value}")]
    places = [
        "--data",
        str(data.parent),
        "--runs",
        str(runs),
        "--device",
        "cpu",
        "--threads",
        "1",
        "--jobs",
        "2",
    ]
    given = ["tune", "--dataset", "mine", "--method", "baseline,opm", "--budget", "3", "--seeds", "0-1"]
    return [*given, *settings, *places, *words]


def test_the_command(data, tmp_path, bmm):
    words = command(data, tmp_path / "runs")
    status, out, _ = bmm(*words, "--dry-run")
    assert status == 0 and len([line for line in out.splitlines() if ", trial " in line]) == 6
    assert not (tmp_path / "runs").exists()
    status, out, _ = bmm(*words, "--status")
    assert out.count("waiting") == 6
    status, out, error = bmm(*words)
    assert status == 0 and error.count("val accuracy") == 6 and error.count(": test accuracy") == 4
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith(("| baseline", "| opm"))]
    records = {
        record.method: record for found in read_searches([tmp_path / "runs"])[0].values() for record in found
    }
    for name, kind, budget, trials, _, validation, test, apart, chosen in (
        [c.strip() for c in row] for row in rows
    ):
        record = records[name]
        assert (kind, budget, trials) == ("quasi-random", "3 trainings", "3")
        assert validation == f"{100 * record.best.accuracy:.1f} (1)"
        tested = [
            read_result(folder)["selections"]["last"]["accuracy"]
            for folder in (tmp_path / "runs" / "mine" / "concat").glob(f"{name}-paper-s*")
            if read_result(folder)["hashes"]["settings"] == record.settings_hash
        ]
        assert len(tested) == 2 and test.startswith(f"{100 * np.mean(tested):.1f} ± ")
        assert apart == f"{100 * (np.mean(tested) - record.best.accuracy):+.1f}"
        assert all(f"{key}={value}" in chosen for key, value in record.best.settings.items())
    status, again, error = bmm(*words)
    assert (status, again) == (0, out) and "accuracy" not in error  # nothing is left to train
    status, out, _ = bmm(*words, "--status")
    assert out.count("finished") == 10 and out.count("chosen settings") == 4
    status, out, error = bmm("report", tmp_path / "runs", "--format", "csv")
    assert status == 0 and len(out.splitlines()) == 4 and "trials of `bmm tune` (6)" in error  # with majority
    rows = json.loads(bmm("report", tmp_path / "runs", "--format", "json")[1])
    by_method = {row["method"]: row for row in rows}
    assert by_method["opm"]["gain"]["tuned"] and by_method["opm"]["gain"]["n"] == 2
    assert by_method["opm"]["rules"]["tuned"] is by_method["baseline"]["rules"]["tuned"] is None


SUITE = """
title = "Two sets"
optional_data = true

[[runs]]
datasets = ["mine", "wikipedia"]
methods = ["baseline", "opm"]
seeds = [0, 1]
settings = { epochs = 2, batch_size = 16, "optimizer.lr" = 0.05, "encoders.vectors" = "mlp" }

[[runs]]
datasets = ["mine"]
models = ["unimodal-a", "unimodal-b"]
seeds = [0, 1]
settings = { epochs = 2, batch_size = 16, "optimizer.lr" = 0.05, "encoders.vectors" = "mlp" }
"""


def test_every_row_of_a_suite_is_tuned(data, tmp_path, bmm):
    (tmp_path / "mine.toml").write_text(SUITE)
    places = ["--data", data.parent, "--runs", tmp_path / "runs", "--device", "cpu", "--threads", "1"]
    words = ["tune", "--suite", tmp_path / "mine.toml", "--budget", "2", *places]
    status, out, _ = bmm(*words, "--dry-run")
    assert status == 0 and out.count(", trial 1: ") == 6 and "wikipedia" in out
    assert "# space of baseline (mine), baseline (wikipedia): " in out and out.count("# space of ") == 2
    out = bmm(*words, "--status")[1]
    assert [out.count(f" {name} concat opm (paper, seed 0), trial ") for name in ("mine", "wikipedia")] == [
        2,
        2,
    ]
    status, out, error = bmm(*words)
    assert status == 0 and "Left out: " in error and error.count("val accuracy") == 8
    assert "\nmine concat opm (paper, seed 0), trial 1: val accuracy " in error
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if "trainings" in line
    ]
    assert [(row[0], row[1], row[7].partition("(")[2]) for row in rows] == [
        ("concat", "baseline", "2)"),
        ("concat", "opm", "2)"),
        ("unimodal-a", "baseline", "2)"),
        ("unimodal-b", "baseline", "2)"),
    ]
    assert all("optimizer.lr=" not in row[-1] for row in rows)  # the suite has set it
    found = json.loads(bmm("report", tmp_path / "runs", "--format", "json")[1])
    (ensemble,) = [row for row in found if row["model"] == "ensemble"]  # each modality by its own choice
    assert ensemble["gain"]["tuned"] and len(ensemble["computed_from"]) == 4
    assert any("=" in row[-1] for row in rows)  # other settings than the suite's: rows of it all the same
    other = ("--set", "epochs=1", "--set", "batch_size=16", "--set", "encoders.vectors=mlp")
    assert bmm("train", "--dataset", "mine", *other, *places)[0] == 0
    (tmp_path / "runs" / "mine" / "concat" / "lost").mkdir()
    of_suite = ["report", tmp_path / "runs", "--suite", tmp_path / "mine.toml"]
    assert json.loads(bmm(*of_suite, "--format", "json")[1]) == found
    assert "Settings that are not" not in bmm(*of_suite)[1]
    run = next((tmp_path / "runs").glob("mine/concat/opm-*-s1-*"))
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("epochs = ", "epochs = 1"))
    assert "config.toml was changed" in bmm(*of_suite)[2]
    (run / "config.toml").write_text(config)
    (tmp_path / "mine.toml").write_text(
        SUITE.replace("batch_size = 16", "batch_size = 8")
    )  # it fixes another one
    status, _, error = bmm(*of_suite)
    assert status == 3 and "runs whose settings are not those of suite mine" in error
    assert "mine concat baseline (3)" in error
    for wrong in (("--method", "opm"), ("--seeds", "0"), ("--out", tmp_path / "tuned.toml")):
        assert bmm(*words, *wrong)[0] == 2


def test_a_row_of_which_every_trial_diverges_costs_the_others_nothing(data, tmp_path, bmm):
    before, after = SUITE.rsplit("0.05", 1)
    (tmp_path / "mine.toml").write_text(f"{before}1e30{after}")
    words = ["tune", "--suite", tmp_path / "mine.toml", "--budget", "2"]
    places = ["--data", data.parent, "--runs", tmp_path / "runs", "--device", "cpu", "--threads", "1"]
    status, out, error = bmm(*words, *places)
    assert status == 3 and "Every trial of unimodal-a baseline (paper, seed 0) diverged." in error
    assert out.count("trainings") == 2 and "| unimodal" not in out


def test_the_choice_as_a_recipe(data, tmp_path, bmm):
    words = command(data, tmp_path / "runs", "--out", tmp_path / "tuned.toml")
    assert bmm(*words)[0] == 2  # of two methods
    words[words.index("baseline,opm")] = "opm"
    assert bmm(*words)[0] == 0
    (record,) = next(iter(read_searches([tmp_path / "runs"])[0].values()))
    config = resolve("mine", method="opm", recipe=str(tmp_path / "tuned.toml"))
    assert config.hash(record.data, with_seed=False) == record.settings_hash


def test_on_a_cluster_each_call_queues_what_can_be_trained_then(data, tmp_path, bmm, monkeypatch):
    """Trials, then the runs with the chosen settings, then the table. The queue here trains a job at once."""
    queued = []

    def submit_all(work, given, at_once):
        queued.append(sorted(job.name for job in work))
        assert given == ["partition=cpu"] and at_once == 2
        for job in work:
            run_job(job, lambda *_: None, lambda _: None)

    monkeypatch.setattr(sys.modules["balancemm_cli.cli.tune"], "submit_all", submit_all)
    words = command(data, tmp_path / "runs", "--launcher", "slurm", "--slurm", "partition=cpu")
    assert bmm(*words)[1] == "" == bmm(*words)[1]
    trials, finals = queued
    assert len(trials) == 6 and all(", trial " in name for name in trials)
    assert len(finals) == 4 and not any(", trial " in name for name in finals)
    status, out, _ = bmm(*words)
    assert status == 0 and "| baseline" in out and len(queued) == 2


def test_a_trial_that_fails_is_named(data, tmp_path, bmm):
    words = command(data, tmp_path / "runs")
    assert bmm(*words, "--status")[0] == 0
    (data / "val-00000.arrow").write_bytes(b"damaged")
    status, _, error = bmm(*words)
    assert status == 3 and "A trial failed" in error and ", trial 0: " in error


def search_in_child(data, runs, steps):
    """A search by halving and the run with its choice, each of whose steps is told to `steps`."""
    search = search_of(data, runs, "opm+ogm", kind="halving")
    complete(search, data, told=steps.send)
    search.write()
    final = Job(search.question.config(0, search.chosen.settings), data, runs, None, "cpu", 1)
    run_job(final, lambda _, event: steps.send(event), lambda _: None)


def start(data, runs):
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=search_in_child, args=(data, runs, theirs))
    process.start()
    theirs.close()
    return process, ours


def finish_search(data, runs):
    process, steps = start(data, runs)
    with pytest.raises(EOFError):
        while True:
            steps.recv()
    process.join()
    assert process.exitcode == 0


@pytest.mark.long
def test_a_search_that_is_killed_five_times_chooses_the_same(data, tmp_path):
    """By SIGKILL at moments that are drawn. The runs and the choice are those of a search that was left alone, to the
    bit."""
    chance = random.Random()
    seed = chance.randrange(2**32)
    print(f"moments drawn with seed {seed}")
    chance.seed(seed)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for _ in range(5):
        process, steps = start(data, killed)
        for _ in range(chance.randint(1, 7)):
            steps.recv()
        time.sleep(chance.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    for runs in (killed, whole):
        finish_search(data, runs)
    assert not list(killed.rglob(".*.tmp"))
    records = [next(iter(read_searches([runs])[0].values())) for runs in (killed, whole)]
    assert [record.fingerprint for (record,) in records] == [records[0][0].fingerprint] * 2
    folders = sorted(path.parent.relative_to(whole) for path in whole.rglob("result.json"))
    assert folders == sorted(path.parent.relative_to(killed) for path in killed.rglob("result.json"))
    states = [read_result(whole / folder)["status"] for folder in folders]
    assert sorted(states) == ["finished"] * 3 + ["interrupted"] * 3  # two trials and the choice; three trials
    for folder in folders:
        assert_same_run(killed / folder, whole / folder, read_result(whole / folder)["status"])
