"""The small real data sets, from the official files where they are at hand: what is prepared is what the files hold."""

import hashlib
import io
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from media_files import SHARED, contents
from PIL import Image
from scipy.io import loadmat
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_training import CPU

from balancemm_cli.config.run import resolve
from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.data.datasets.htad import installed
from balancemm_cli.data.datasets.mosi_utterances import FILES
from balancemm_cli.data.preparing.prepare import embedded, prepare_dataset
from balancemm_cli.data.preparing.verify import verify
from balancemm_cli.data.splitting import in_two_parts
from balancemm_cli.data.store import PreparedSet
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import InputError
from balancemm_cli.results.published import covers, wrong_data
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.runs.schema import Result

REAL = SHARED / "data" / "real"
SOURCES = {
    "htad": REAL / "htad",
    "uci-digits": REAL / "uci-digits",
    "spoken-digits": REAL / "free-spoken-digit-dataset",
    "mosi-utterances": REAL / "mosi-utterances",
    "wikipedia": REAL / "wikipedia",
}
COUNTS = {
    "htad": {"train": 831, "val": 278, "test": 277},
    "uci-digits": {"train": 1200, "val": 400, "test": 400},
    "spoken-digits": {"train": 2400, "val": 300, "test": 300},
    "mosi-utterances": {"train": 1155, "val": 292, "test": 752},
    "wikipedia": {"train": 1738, "val": 435, "test": 693},
}
SPLITS = {  # of `id,split,label` of each sample, in the order of the ids, and for spoken-digits its picture
    "htad": "ca0883dc01e5ff0c",
    "uci-digits": "be644937e9a33f5c",
    "spoken-digits": "3627e4f8ba1862d6",
    "mosi-utterances": "56dfdb50bf2b04e9",
    "wikipedia": "e8c4b64d10f9412e",
}

Features = dict[str, np.ndarray]


def source(name: str) -> Path:
    if not SOURCES[name].is_dir():
        pytest.skip(f"the files of {name} are absent")
    return SOURCES[name]


@pytest.fixture(scope="module", params=SOURCES)
def prepared(request, tmp_path_factory) -> PreparedSet:
    name = request.param
    return prepare_dataset(name, source(name), out=tmp_path_factory.mktemp("set") / name, workers=1)


@pytest.fixture(scope="module", params=SOURCES)
def plan(request):
    return DATASETS[request.param].plan(source(request.param), None, False)


def score(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """The accuracy of a linear model on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-7))
    return model.fit(train.astype(np.float64), labels).score(test.astype(np.float64), truth)


# The files, read by other means than the program's


def htad() -> tuple[Features, np.ndarray]:
    table = pd.read_csv(SOURCES["htad"] / "htad.csv")
    return {
        "audio": table.filter(like="v1_").to_numpy(),
        "movement": table.filter(like="v2_").to_numpy(),
    }, table["class"].to_numpy()


def uci_digits() -> tuple[Features, np.ndarray]:
    tables = {
        view: pd.read_csv(SOURCES["uci-digits"] / f"mfeat-{view}.csv").to_numpy(float)
        for view in ("fou", "fac", "kar", "pix", "zer", "mor")
    }
    return {view: table[:, :-1] for view, table in tables.items()}, np.repeat(np.arange(10), 200).astype(str)


def mosi_utterances() -> tuple[Features, np.ndarray]:
    folders = {"text": "text", "audio": "audio", "visual": "video"}
    tables = {
        modality: np.concatenate(
            [
                pd.read_csv(
                    SOURCES["mosi-utterances"] / folder / f"{folder}_{part}0.csv", header=None
                ).to_numpy()
                for part in ("train", "test")
            ]
        )
        for modality, folder in folders.items()
    }
    labels = np.where(tables["text"][:, -1] > 0, "positive", "negative")
    return {modality: table[:, :-1] for modality, table in tables.items()}, labels


def wikipedia() -> tuple[Features, np.ndarray]:
    content = loadmat(SOURCES["wikipedia"] / "Wikipedia.mat")
    names = np.array([cell[0].item() for cell in content["class_meaning"]])
    return {"visual": content["X"][0, 0], "text": content["X"][1, 0]}, names[content["y"].ravel() - 1]


def rows_of_transcripts() -> dict[str, int]:
    """The row of each sentence in the tables, train before test: the first 62 videos, and positive ones first."""
    table = pd.read_csv(SOURCES["mosi-utterances"] / "transcripts.csv", header=None)
    table["test"] = table[2] > 62
    ordered = table.sort_values(["test", 3], ascending=[True, False], kind="stable")
    return {name: row for row, name in enumerate(ordered[0])}


def row_of(name: str) -> Callable[[str], int]:
    """The row of the source that a sample is, by its id."""
    if name == "mosi-utterances":
        return rows_of_transcripts().__getitem__
    if name == "wikipedia":  # the last 693 rows of the full file are the test's
        return lambda sample: int(sample[-4:]) + 2173 * sample.startswith("test")
    return lambda sample: int(sample[-4:])


READ = {
    "htad": htad,
    "uci-digits": uci_digits,
    "mosi-utterances": mosi_utterances,
    "wikipedia": wikipedia,
}


def stored(prepared: PreparedSet, split: str, modality: str) -> np.ndarray:
    part = prepared.split(split)
    return np.stack([part.array(modality, row) for row in part.holders(modality)])


@pytest.mark.parametrize("prepared", READ, indirect=True)
def test_a_linear_model_has_the_accuracy_that_it_has_on_the_files(prepared) -> None:
    features, labels = READ[prepared.name]()
    row = row_of(prepared.name)
    rows = {part: [row(sample) for sample in prepared.split(part).ids] for part in COUNTS[prepared.name]}
    held = {part: np.array(prepared.classes)[prepared.split(part).labels] for part in rows}
    for part, own in rows.items():
        assert held[part].tolist() == labels[own].tolist()
    for modality, values in features.items():
        train, test = (stored(prepared, part, modality) for part in ("train", "test"))
        np.testing.assert_array_equal(test, values[rows["test"]].astype(np.float32))
        ours = score(train, held["train"], test, held["test"])
        theirs = score(
            values[rows["train"]], labels[rows["train"]], values[rows["test"]], labels[rows["test"]]
        )
        assert ours == pytest.approx(theirs), modality
    assert list(features) == list(prepared.modalities)


@pytest.mark.parametrize("prepared", ["spoken-digits"], indirect=True)
def test_sound_and_pictures_are_those_of_the_files(prepared) -> None:
    digits = load_digits()
    pairs = {
        sample.id: int(sample.clips["visual"].name.partition("#")[2])
        for sample in DATASETS["spoken-digits"].plan(source("spoken-digits"), None, False).samples
    }
    ours, theirs, labels = {}, {}, {}
    for part in ("train", "test"):
        held = prepared.split(part)
        labels[part] = held.labels
        assert labels[part].tolist() == [int(sample[0]) for sample in held.ids]
        assert labels[part].tolist() == digits.target[[pairs[sample] for sample in held.ids]].tolist()
        sounds = [read_wav(SOURCES["spoken-digits"] / "recordings" / f"{sample}.wav") for sample in held.ids]
        for row, sound in enumerate(sounds):
            np.testing.assert_array_equal(held.array("audio", row), sound)
        theirs["audio", part] = np.stack([spectrum(sound) for sound in sounds])
        ours["audio", part] = np.stack([spectrum(held.array("audio", row)) for row in range(len(held.ids))])
        theirs["visual", part] = digits.images[[pairs[sample] for sample in held.ids]].reshape(-1, 64)
        ours["visual", part] = np.stack(
            [pixels(*held.frames("visual", row)) for row in held.holders("visual")]
        )
        difference = np.abs(ours["visual", part] - theirs["visual", part])
        assert difference.mean() < 0.5, "levels of 16"
    for modality in ("audio", "visual"):
        found = [
            score(values[modality, "train"], labels["train"], values[modality, "test"], labels["test"])
            for values in (ours, theirs)
        ]
        assert found[0] == pytest.approx(found[1], abs=0 if modality == "audio" else 0.01), modality
        assert found[0] > 0.6


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def spectrum(sound: np.ndarray) -> np.ndarray:
    """The mean log magnitude of each frequency, over windows of 16 ms."""
    padded = np.pad(sound.astype(np.float64), (0, max(0, 128 - len(sound))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 128)[::64] * np.hanning(128)
    return np.log(np.abs(np.fft.rfft(windows, axis=1)) + 1).mean(0)


def pixels(jpeg: bytes) -> np.ndarray:
    """A stored picture at the size and levels that it had: the middle of each of its pixels."""
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.size == (64, 64) and picture.mode == "RGB"
    blocks = np.asarray(picture.convert("L")).reshape(8, 8, 8, 8)
    return blocks[:, 3:5, :, 3:5].mean((1, 3)).reshape(-1) * (16 / 255)


# Splits


def test_the_split_is_pinned(plan) -> None:
    lines = [
        ",".join(
            [sample.id, sample.split, sample.label]
            + ([sample.clips["visual"].name] if plan.name == "spoken-digits" else [])
        )
        for sample in sorted(plan.samples, key=lambda sample: sample.id)
    ]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == SPLITS[plan.name]
    found = {part: sum(sample.split == part for sample in plan.samples) for part in ("train", "val", "test")}
    assert found == COUNTS[plan.name]
    assert plan.official_lists and plan.split_name in DATASETS[plan.name].SPLIT_NAMES


def content(sample, *modalities: str) -> str:
    """What a sample holds of some modalities, to compare."""
    return "/".join(str(sample.clips[modality].describe()) for modality in modalities)


def test_no_group_is_in_two_parts(plan) -> None:
    """No picture of the digits, no video of the sentences, no row twice, and of Wikipedia's training no picture."""
    parts = {sample.id: sample.split for sample in plan.samples}
    of_training = {sample.id: sample for sample in plan.samples if sample.split != "test"}
    if plan.name == "spoken-digits":
        groups = {sample.id: content(sample, "visual") for sample in plan.samples}
    elif plan.name == "mosi-utterances":
        groups = {sample.id: sample.id.rpartition("_")[0] for sample in plan.samples}
        assert len(set(groups.values())) == 93
    else:
        groups = {sample.id: content(sample, *plan.modalities) for sample in plan.samples}
    assert not in_two_parts(groups, parts)
    if plan.name == "wikipedia":
        pictures = {name: content(sample, "visual") for name, sample in of_training.items()}
        assert len(set(pictures.values())) < len(pictures)
        assert not in_two_parts(pictures, parts)


def test_in_validation_and_test_each_picture_is_shown_once() -> None:
    plan = DATASETS["spoken-digits"].plan(source("spoken-digits"), None, False)
    for part in ("val", "test"):
        shown = [sample.clips["visual"].name for sample in plan.samples if sample.split == part]
        assert len(shown) == len(set(shown)) == 300
    indices = {sample.split: set() for sample in plan.samples}
    for sample in plan.samples:
        indices[sample.split].add(int(sample.id.rpartition("_")[2]))
    assert indices == {"test": set(range(5)), "val": set(range(5, 10)), "train": set(range(10, 50))}


def test_wikipedia_says_what_is_in_both_files() -> None:
    plan = DATASETS["wikipedia"].plan(source("wikipedia"), None, False)
    assert [note.partition(" of ")[0] for note in plan.notes] == ["693", "3 pictures"]


# Use


@pytest.mark.long
def test_preparing_twice_gives_the_same_bytes(prepared, tmp_path) -> None:
    again = prepare_dataset(prepared.name, SOURCES[prepared.name], out=tmp_path / "again", workers=2)
    assert contents(again.folder) == contents(prepared.folder)


def trained(prepared: PreparedSet, runs: Path) -> Result:
    """The result of an epoch by the data set's own recipe."""
    folder = RunFolder(runs, resolve(prepared.name, "concat", "opm+ogm", overrides=["epochs=1"]), prepared)
    return Result.model_validate(train_run(folder, CPU))


def test_it_trains(prepared, tmp_path) -> None:
    result = trained(prepared, tmp_path)
    assert (
        result.status == "finished"
        and {name: count for name, (count, _) in result.samples.items()} == COUNTS[prepared.name]
    )
    found = result.selections["best-val"]
    assert set(found.unimodal) == set(prepared.modalities)
    assert found.accuracy > 1.2 / len(prepared.classes)


def test_the_archive_s_form_of_the_official_digits_is_known(tmp_path) -> None:
    """Its files have more digits and no labels; the split is the same."""
    for path in source("uci-digits").glob("*.csv"):
        numbers = pd.read_csv(path).to_numpy(float)[:, :-1] * (1 + 1e-9)
        np.savetxt(tmp_path / path.stem, numbers, fmt=" %.9f")
    archive = DATASETS["uci-digits"].plan(tmp_path, None, False)
    csvs = DATASETS["uci-digits"].plan(SOURCES["uci-digits"], None, False)
    assert archive.official_lists
    for one, other in zip(archive.samples, csvs.samples, strict=True):
        assert (one.id, one.split, one.label) == (other.id, other.split, other.label)


@pytest.mark.parametrize("name", ["htad", "uci-digits", "mosi-utterances", "wikipedia"])
def test_the_official_files_are_verified(name) -> None:
    found = DATASETS[name].plan(source(name), None, False)
    said = verify(DATASETS[name], SOURCES[name], found, 1)
    assert said.startswith("Verified: ") and " 0 files" not in said


def test_the_package_s_own_table_is_the_default_source(tmp_path, monkeypatch) -> None:
    path = installed()
    if path is None:
        pytest.skip("the package multiviewstacking is not installed")
    monkeypatch.chdir(tmp_path)
    request = embedded(tmp_path / "htad")
    assert request is not None
    assert request.plan.official_lists and len(request.plan.samples) == 1386
    with pytest.raises(InputError, match=r"There is no file typo/htad\.csv"):
        DATASETS["htad"].plan(Path("typo/htad.csv"), None, False)


def test_no_printed_number_is_compared_with_mosi_utterances(tmp_path) -> None:
    """Nor where the folder bears the name of the other data set."""
    assert not covers("mosi-utterances")
    prepared = prepare_dataset(
        "mosi-utterances", source("mosi-utterances"), out=tmp_path / "mosi-utterances", workers=1
    )
    result = trained(prepared, tmp_path)
    assert wrong_data(result, "cmu-mosi", "official").endswith("and not cmu-mosi.")
    assert set(FILES) == {
        path.relative_to(SOURCES["mosi-utterances"]).as_posix()
        for path in SOURCES["mosi-utterances"].rglob("*.csv")
    }
