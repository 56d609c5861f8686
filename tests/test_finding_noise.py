"""The finding on noise: trained and evaluated runs, the rows of its table, and its numbers against the run folders."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.config.suites import load_suite
from balancemm_cli.engine.run_evaluation import Wanted, evaluate_run
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.results.collection import collect
from balancemm_cli.results.findings.noise import DEVIATION, Noise
from balancemm_cli.runs.evaluation import keep
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.testing import sets

CPU = torch.device("cpu")
SEEDS = (0, 1)
DEVIATIONS = ((1, 0), (0, 2))
ROWS = [("baseline", None), ("opm", None)]
ROWS += [(method, given) for method in ("input-noise", "input-noise+opm") for given in DEVIATIONS]
AMOUNTS = [0.0, 1.0, 2.0]


def train(data, runs, method, seed, deviation=None, model="concat"):
    small = ["epochs=1", "encoder=small", "pretrained=false", "batch_size=8"]
    overrides = [*small, *([(DEVIATION, deviation)] if deviation else [])]
    config = resolve("manifest", model, method, seed=seed, overrides=overrides)
    folder = RunFolder(runs, config, data)
    train_run(folder, CPU)
    return folder.path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders by method, deviations and seed, all but one evaluated under noise; with a run of each modality alone."""
    root, data = tmp_path_factory.mktemp("runs"), sets.tiny_set(tmp_path_factory.mktemp("data") / "manifest")
    folders = {(*row, seed): train(data, root, row[0], seed, row[1]) for seed in SEEDS for row in ROWS}
    wanted = Wanted(noise={"audio": AMOUNTS, "visual": AMOUNTS})
    for key, folder in folders.items():
        if key != ("opm", None, 1):
            keep(folder, *evaluate_run(folder, data.folder.parent, CPU, wanted))
    alone = {name: train(data, root, "baseline", 0, model=f"unimodal-{name}") for name in ("audio", "visual")}
    return SimpleNamespace(root=root, folders=folders, alone=alone)


@pytest.fixture(scope="module")
def finding(trained):
    return Noise(collect([trained.root], "last").groups, "last")


@pytest.fixture(scope="module")
def order(trained):
    """The modalities, the one that is better alone first."""

    def accuracy(name):
        result = json.loads((trained.alone[name] / "result.json").read_text())
        return result["selections"]["last"]["accuracy"]

    assert accuracy("audio") != accuracy("visual")
    return sorted(trained.alone, key=accuracy, reverse=True)


def named(method, deviation, order):
    if deviation is None:
        return method
    (amount,) = filter(None, deviation)
    modality = ("audio", "visual")[deviation.index(amount)]
    return f"{method}, {amount} on the {('stronger', 'weaker')[order.index(modality)]}"


def test_rows_say_on_which_modality_they_have_noise(finding, order):
    (table,) = finding.tables
    assert [row[0] for row in table.cells][:2] == ["baseline", "opm"]
    assert {row[0] for row in table.cells} == {named(*row, order) for row in ROWS}
    note = next(note for note in table.notes if note.startswith("Trained alone"))
    assert re.search(rf"the stronger is {order[0]}, .* the weaker is {order[1]}, ", note)
    assert f"--noise {order[0]}=0,1,2 --noise {order[1]}=0,1,2" in note


def numbers_by_hand(folder, order):
    """What the folder's own files say, by the heads of the measures."""
    result = json.loads((folder / "result.json").read_text())
    found = {
        "Accuracy": result["selections"]["last"]["accuracy"],
        "ρ of the stronger": result["rho"][order[0]],
    }
    if (folder / "evaluation.json").exists():
        noise = json.loads((folder / "evaluation.json").read_text())["noise"]
        for rank, name in zip(("stronger", "weaker"), order, strict=True):
            by_amount = {point["amount"]: point["accuracy"] for point in noise[name]}
            assert by_amount[0] == found["Accuracy"]
            found |= {f"Noise {amount} on the {rank}": by_amount[amount] for amount in (1, 2)}
    return found


def test_numbers_are_those_of_the_folders(finding, trained, order):
    """Of each row and measure the values by seed, and the means in the table's cells."""
    (table,) = finding.tables
    cells = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.cells}
    expected = {
        (named(*row, order), head, seed): value
        for row in ROWS
        for seed in SEEDS
        for head, value in numbers_by_hand(trained.folders[*row, seed], order).items()
    }
    found = {
        (record["row"], record["measure"], seed): value
        for record in finding.records
        for seed, value in record["values"].items()
    }
    assert found == expected
    for row in ROWS:
        name = named(*row, order)
        for head in {head for _, head, _ in expected}:
            values = [expected[name, head, seed] for seed in SEEDS if (name, head, seed) in expected]
            cell = re.match(r"(-?[\d.]+).* \((\d)\)$", cells[name][head])
            assert cell, cells[name][head]
            shown, count = cell.groups()
            scale, rounding = (1, 0.006) if head.startswith("ρ") else (100, 0.06)
            assert float(shown) == pytest.approx(scale * np.mean(values), abs=rounding)
            assert int(count) == len(values) == (1 if row[0] == "opm" and "Noise" in head else 2)


def test_each_row_is_held_against_the_same_without_opm_or_without_noise(finding, order):
    (place,) = finding.places
    names = {id(group): name for group, name in zip(place.groups, place.names, strict=True)}
    references = {
        names[id(group)]: other and names[id(other)]
        for group in place.groups
        for other in [finding.reference(group, place)]
    }
    expected = {"baseline": None, "opm": "baseline"}
    for given in DEVIATIONS:
        expected[named("input-noise", given, order)] = "baseline"
        expected[named("input-noise+opm", given, order)] = named("input-noise", given, order)
    assert references == expected


def test_the_difference_is_that_of_the_shared_seeds(finding, trained, order):
    """OPM's run of seed 1 was not evaluated under noise, so that seed 0 alone counts there."""
    head = "Noise 1 on the stronger"
    (record,) = [one for one in finding.records if (one["row"], one["measure"]) == ("opm", head)]
    mine, other = (
        numbers_by_hand(trained.folders[name, None, 0], order)[head] for name in ("opm", "baseline")
    )
    assert record["difference"] == pytest.approx(mine - other) and record["interval"] is None


def test_without_the_modalities_alone_no_one_knows_which_is_stronger(finding):
    groups = [group for group in finding.groups if not group.first.model.startswith("unimodal-")]
    (table,) = Noise(groups, "last").tables
    assert any(note.startswith("Which modality is the stronger is not known") for note in table.notes)
    assert {"input-noise, 1 on audio", "input-noise+opm, 2 on visual"} <= {row[0] for row in table.cells}
    shown = {head for head, *cells in zip(table.header, *table.cells, strict=True) if set(cells) != {"—"}}
    assert shown == {"Row", "Accuracy", "Δ Accuracy"}


def test_the_suite_plans_each_row_with_what_it_is_held_against():
    """On each data set the same ten rows, each modality alone beside them, all under the same further settings."""
    by_dataset = {}
    for config in load_suite("finding-3")[1].configs():
        settings = config.settings.model_dump(mode="json")
        deviation = config.methods.get("input-noise", {}).get("deviation")
        row = config.model, config.method, deviation and tuple(deviation)
        of_row = by_dataset.setdefault(config.dataset, {}).setdefault(row, [])
        of_row.append(json.dumps(settings, sort_keys=True))
    noises = {(1, 0), (2, 0), (0, 1), (0, 2)}
    expected = {("baseline", None), ("opm", None)}
    expected |= {(method, noise) for method in ("input-noise", "input-noise+opm") for noise in noises}
    for rows in by_dataset.values():
        alone = [row for row in rows if row[0].startswith("unimodal-")]
        assert len(alone) == 2
        assert {row[1:] for row in rows if row not in alone} == expected
        assert len({settings for found in rows.values() for settings in found}) == 1
