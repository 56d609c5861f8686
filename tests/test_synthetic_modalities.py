"""The data of 2 to 8 modalities: what they hold, what can be attained, and that every fusion trains on them."""

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from small_training import train_and_evaluate

from balancemm_cli.cli.train import prepared_folder
from balancemm_cli.config.recipe import load_recipe
from balancemm_cli.data.made import synthetic_modalities as data
from balancemm_cli.data.preparing.estimate import dry_run
from balancemm_cli.data.preparing.prepare import Request, embedded, prepare_dataset, prepare_plan
from balancemm_cli.data.store import open_set
from balancemm_cli.errors import UsageError

PAGE = Path(__file__).parents[1] / "docs" / "datasets" / "synthetic-modalities.md"


def drawn(design, count):
    """Sequences [N, STEPS, WIDTH] a modality, which of them are informative [N, M], and the classes [N]."""
    samples = data.plan_of(replace(design, counts={"test": count})).samples
    sequences = {
        name: np.stack([sample.clips[name].read({}, frozenset()) for sample in samples])
        for name in design.modalities
    }
    flags = np.array([sample.extras["informative"] for sample in samples], bool)
    return sequences, flags, np.array([data.CLASSES.index(sample.label) for sample in samples])


def within(found, expected, count, errors=3.5):
    """Whether a share of `count` samples is as far from its expectation as chance makes it."""
    return abs(found - expected) < errors * (expected * (1 - expected) / count) ** 0.5 + 1e-3


def test_patterns_are_orthogonal_and_a_modality_has_its_own():
    for modality in range(data.MOST):
        np.testing.assert_allclose(data.patterns(modality) @ data.patterns(modality).T, np.eye(4), atol=1e-12)
    assert all(
        not np.array_equal(data.patterns(a), data.patterns(b)) for a, b in combinations(range(data.MOST), 2)
    )


def test_a_cue_of_its_strength_is_in_one_step_where_the_modality_is_informative():
    """The same sample without strength is the noise alone, so their difference is the cue."""
    design = data.Design((8.0, 3.0), noise=0.5, redundancy=0.0)
    sequences, flags, labels = drawn(design, 200)
    silent, *_ = drawn(replace(design, strengths=(0.0, 0.0)), 200)
    for index, name in enumerate(design.modalities):
        cue = sequences[name] - silent[name]
        assert ((np.abs(cue).max(2) > 1e-4).sum(1) == flags[:, index]).all()
        expected = design.strengths[index] * data.patterns(index)[labels] * flags[:, index, None]
        np.testing.assert_allclose(cue.sum(1), expected, atol=1e-5)
        assert silent[name].std() == pytest.approx(0.5, rel=0.02)
        assert abs(silent[name].mean()) < 0.02


@pytest.mark.parametrize("redundancy", [0.0, 0.5, 1.0])
def test_informative_modalities_are_as_many_and_as_joint_as_designed(redundancy):
    design = data.Design((4.0,) * 4, redundancy=redundancy, informative=0.6)
    flags = np.array([data.informative(design, "train", number) for number in range(4000)])
    assert all(within(share, 0.6, 4000) for share in flags.mean(0))
    for a, b in combinations(range(4), 2):
        assert within((flags[:, a] & flags[:, b]).mean(), redundancy * 0.6 + (1 - redundancy) * 0.36, 4000)
    assert within(flags.any(1).mean(), redundancy * 0.6 + (1 - redundancy) * (1 - 0.4**4), 4000)


def test_the_ceiling_by_hand():
    design = data.Design((4.0, 4.0), redundancy=0.5, informative=0.6)
    assert data.ceiling(design) == pytest.approx(0.72 + 0.28 / 4)  # (0.6 + 0.84) / 2 hold a cue
    assert data.alone(design) == pytest.approx(0.7)


def test_the_posterior_by_hand():
    """Bayes' rule summed over which modalities hold the cue, and where, from Gaussian densities."""
    design = data.Design((2.0, 3.0), noise=0.8, redundancy=0.3, informative=0.6)
    sequences, _, _ = drawn(design, 6)

    def density(values, index, label, step):
        mean = np.zeros((data.STEPS, data.WIDTH))
        if step is not None:
            mean[step] = design.strengths[index] * data.patterns(index)[label]
        return np.exp(-((values - mean) ** 2).sum() / (2 * 0.8**2))

    for row, found in enumerate(data.posterior(design, sequences)):
        joint = []
        for label in range(4):
            cue, none = [], []
            for index, name in enumerate(design.modalities):
                values = sequences[name][row].astype(float)
                cue.append(np.mean([density(values, index, label, step) for step in range(data.STEPS)]))
                none.append(density(values, index, label, None))
            shared = 0.6 * cue[0] * cue[1] + 0.4 * none[0] * none[1]
            others = (0.6 * cue[0] + 0.4 * none[0]) * (0.6 * cue[1] + 0.4 * none[1])
            joint.append(0.3 * shared + 0.7 * others)
        np.testing.assert_allclose(found, np.array(joint) / sum(joint), rtol=1e-6)


def test_the_best_classifier_attains_what_the_page_says():
    rows = re.findall(r"^\| (\d) \| `(\w+)` \| ([\d.]+)% \| (.*) \|$", PAGE.read_text(), re.M)
    assert {(count, redundancy) for count, redundancy, *_ in rows} == {
        (count, redundancy) for count in "238" for redundancy in data.REDUNDANCIES
    }
    for count, redundancy, ceiling, attained in rows:
        for noise, percent in zip(("quiet", "moderate", "loud"), attained.split(" | "), strict=True):
            design = data.design(count, "graded", noise, redundancy)
            assert float(ceiling) == pytest.approx(100 * data.ceiling(design), abs=0.06)
            sequences, _, labels = drawn(design, 400)
            right = (data.posterior(design, sequences).argmax(1) == labels).mean()
            assert within(right, float(percent.rstrip("%")) / 100, 400), (count, redundancy, noise)


def test_no_cue_is_missed_where_noise_is_low():
    """Where a modality is informative the best classifier is right; elsewhere it guesses."""
    design = data.Design((8.0, 8.0, 8.0), noise=0.4, redundancy=0.2)
    sequences, flags, labels = drawn(design, 600)
    right = data.posterior(design, sequences).argmax(1) == labels
    assert right[flags.any(1)].all()
    assert right[~flags.any(1)].mean() < 0.5


def test_prepared_without_any_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = prepare_dataset("synthetic-modalities", workers=1, options={"modalities": "2"})
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert prepared.folder == Path("data/prepared/synthetic-modalities-2")
    assert [path.name for path in Path("data").iterdir()] == ["prepared"]
    assert prepared.counts == data.COUNTS and prepared.classes == data.CLASSES
    assert prepared.modalities == {
        name: {"kind": "features", "length": 8, "width": 16} for name in ("m1", "m2")
    }
    split, design = prepared.split("test"), data.design("2")
    sequences, flags, labels = drawn(design, 20)
    assert split.labels[:20].tolist() == labels.tolist()
    assert split.extra("informative")[:20] == flags.astype(int).tolist()
    for name, values in sequences.items():
        stored = [split.array(name, row).reshape(8, 16) for row in range(20)]
        np.testing.assert_array_equal(stored, values)
    assert "79.0% in expectation" in prepared.manifest["notes"][0]
    again = prepare_dataset("synthetic-modalities", workers=1, options={"modalities": "2"})
    assert again.manifest == prepared.manifest


def test_every_name_of_embedded_data_is_of_one_design(tmp_path):
    names = set()
    for count in data.OPTIONS["modalities"]:
        for ease in data.OPTIONS["ease"]:
            for noise in data.OPTIONS["noise"]:
                for redundancy in data.OPTIONS["redundancy"]:
                    options = {"modalities": count, "ease": ease, "noise": noise, "redundancy": redundancy}
                    folder = Request("synthetic-modalities", options=options).folder("synthetic-modalities")
                    names.add(folder.name)
    assert len(names) == 7 * 3 * 3 * 3
    for name in ("synthetic-modalities", "synthetic-modalities-8-single-loud-shared"):
        request = embedded(tmp_path / name)
        assert request.name == "synthetic-modalities" and request.out == tmp_path / name
    assert embedded(tmp_path / "synthetic").name == "synthetic"
    assert data.design(**request.options) == data.Design((8.0, *[4.0] * 7), 1.5, 1.0)
    for other in ("crema-d", "synthetic-2", "synthetic-modalities-9", "synthetic-modalities-loud-8"):
        assert embedded(tmp_path / other) is None
    assert load_recipe("synthetic-modalities-8-loud", None)[2].endswith("synthetic-modalities/default.toml")


def test_train_prepares_what_is_absent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "COUNTS", {"train": 8, "test": 4})
    folder = prepared_folder("synthetic-modalities-5-equal", tmp_path)
    assert list(open_set(folder).modalities) == ["m1", "m2", "m3", "m4", "m5"]
    assert "is absent: preparing synthetic-modalities first." in capsys.readouterr().err
    assert prepared_folder("synthetic-modalities-5-equal", tmp_path) == folder


def test_a_dry_run_lists_it(tmp_path):
    request = Request("synthetic-modalities", out=tmp_path / "out", options={"redundancy": "shared"})
    lines = "\n".join(dry_run(request, 1))
    assert "2,000 samples of 4 classes" in lines and "m3: features, up to 8 steps of 16 numbers" in lines
    assert "No classifier exceeds 70.0%" in lines and "missing" not in lines


@pytest.mark.parametrize(
    "wrong",
    [
        {"strengths": (1.0,)},
        {"strengths": (1.0,) * 9},
        {"noise": 0.0},
        {"redundancy": 1.5},
        {"informative": 1.0},
        {"strengths": (1.0, -1.0)},
    ],
)
def test_designs_out_of_range(wrong):
    with pytest.raises(UsageError, match=r"^A design needs 2 to 8 strengths"):
        data.Design(**{"strengths": (4.0, 4.0), **wrong})


def test_other_options_are_refused():
    with pytest.raises(
        UsageError, match=r"--modalities of data set 'synthetic-modalities' is one of 3, 2, 4"
    ):
        Request("synthetic-modalities", options={"modalities": "9"})
    with pytest.raises(UsageError, match="has no --noise"):
        Request("synthetic", options={"noise": "loud"})
    with pytest.raises(UsageError, match="has no split lists"):
        data.SyntheticModalities().plan(Path(), Path("lists"), False)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_opm_and_ogm_train_on_it(tmp_path, count):
    design = replace(data.design(str(count)), counts={"train": 16, "test": 8})
    folder = prepare_plan(data.plan_of(design), tmp_path / "synthetic-modalities", workers=1)
    for model in ("concat", "sum", "gated", "lmf") if count < 8 else ("lmf", "gated"):
        result = train_and_evaluate(open_set(folder), tmp_path / "runs", model=model)
        assert list(result["rho"]) == design.modalities
