"""balancemm_cli.data.store: round trip, damage, other versions."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from balancemm_cli.data import store
from balancemm_cli.errors import InputError, UsageError

ROOT = Path(__file__).parent.parent
MODALITIES = {
    "sound": {"kind": "waveform", "rate": 8000},
    "front": {"kind": "frames", "height": 4, "width": 4, "fps": 1.0, "channels": 3},
}


def rows(count):
    generator = np.random.default_rng(0)
    return [
        {
            "id": f"clip {i}",
            "label": i % 3,
            "sound": generator.integers(-30000, 30000, 10 * i, dtype=np.int16),
            "front": [generator.bytes(5 + k) for k in range(i % 4)],
        }
        for i in range(count)
    ]


@pytest.fixture
def folder(tmp_path):
    """A prepared folder with two shards of train, none of test."""
    shards = []
    for number, part in enumerate((rows(7)[:4], rows(7)[4:])):
        path = tmp_path / f"train-{number:05d}.arrow"
        assert store.write_shard(path, part, MODALITIES) == len(part)
        facts = {"bytes": path.stat().st_size, "sha256": store.file_hash(path)}
        shards.append({"file": path.name, "rows": len(part), **facts})
    manifest = {
        "format": store.FORMAT,
        "dataset": "small",
        "classes": ["a", "b", "c"],
        "modalities": MODALITIES,
        "splits": {
            "train": {"expected": 9, "prepared": 7, "shards": shards},
            "test": {"expected": 0, "prepared": 0, "shards": []},
        },
        "splits_hash": "0",
    }
    store.write_json(tmp_path / "manifest.json", {**manifest, "content_hash": store.content_hash(manifest)})
    return tmp_path


def test_rows_come_back(folder):
    prepared = store.open_set(folder)
    assert (prepared.name, prepared.classes, list(prepared.modalities)) == (
        "small",
        list("abc"),
        ["sound", "front"],
    )
    assert prepared.counts == {"train": 7, "test": 0} and prepared.expected == {"train": 9, "test": 0}
    split = prepared.split("train")
    assert len(split) == 7 and split.labels.dtype == np.int64
    for index, row in enumerate(rows(7)):
        assert split.ids[index] == row["id"] and split.labels[index] == row["label"]
        assert split.frames("front", index) == row["front"]
        waveform = split.array("sound", index)
        assert waveform.dtype == np.int16
        np.testing.assert_array_equal(waveform, row["sound"])
    assert len(prepared.split("test")) == 0


def test_shards_are_plain_arrow(folder):
    with pa.ipc.open_file(str(folder / "train-00000.arrow")) as file:
        table = file.read_all()
    assert table.schema.field("sound").type == pa.list_(pa.int16())
    assert table.schema.field("front").type == pa.list_(pa.binary())
    assert table["label"].to_pylist() == [0, 1, 2, 0]


def test_large_rows_are_cut_into_batches(tmp_path, monkeypatch):
    path = tmp_path / "a.arrow"
    monkeypatch.setattr(store, "BATCH_BYTES", 100)
    store.write_shard(path, rows(20), MODALITIES)
    with pa.ipc.open_file(str(path)) as file:
        assert file.num_record_batches > 5
        assert file.read_all()["id"].to_pylist() == [row["id"] for row in rows(20)]


def test_every_kind_and_extra_comes_back_and_a_null_is_the_row_above(tmp_path):
    kinds = {
        "audio": {"kind": "waveform", "rate": 8000},
        "flow": {"kind": "frames", "height": 4, "width": 4, "fps": 1.0, "channels": 2},
        "text": {"kind": "features", "length": 5, "width": 3},
        "question": {"kind": "tokens", "length": 4, "words": ["<pad>", "is", "it"]},
    }
    extras = {"segments": "integers", "regression": "number", "type": "text"}
    first = {
        "audio": np.arange(6, dtype=np.int16),
        "flow": [b"u", b"v"],
        "text": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
        "question": np.array([1, 2], np.int32),
    }
    second = {**dict.fromkeys(first), "question": np.array([2], np.int32)}
    third = {
        "audio": np.array([5], np.int16),
        "flow": [b"w"],
        "text": first["text"][:1] + 1,
        "question": None,
    }
    known = [
        {"segments": [0, 28], "regression": -1.6, "type": "Audio-Counting"},
        {"segments": [], "regression": 0.0, "type": "é"},
        {"segments": [3], "regression": 2.5, "type": ""},
    ]
    written = [{"id": str(i), "label": i, **row, **known[i]} for i, row in enumerate((first, second, third))]
    path = tmp_path / "train-00000.arrow"
    store.write_shard(path, written, kinds, extras)
    split = store.PreparedSplit(pa.ipc.open_file(str(path)).read_all())
    assert {name: split.holders(name).tolist() for name in kinds} == {
        "audio": [0, 0, 2],
        "flow": [0, 0, 2],
        "text": [0, 0, 2],
        "question": [0, 1, 1],
    }
    for name in ("audio", "text", "question"):
        held = [first, second, third][int(split.holders(name)[1])][name]
        stored = split.array(name, int(split.holders(name)[1]))
        assert stored.dtype == held.dtype == split.dtype(name)
        np.testing.assert_array_equal(stored, held.reshape(-1))
    assert split.frames("flow", 0) == [b"u", b"v"] and split.lengths("flow").tolist() == [2, 0, 1]
    for name in extras:
        assert split.extra(name) == [row[name] for row in known]


def test_unknown_split(folder):
    with pytest.raises(UsageError, match="no split 'val'"):
        store.open_set(folder).split("val")


def test_absent_folder(tmp_path):
    with pytest.raises(InputError, match="no prepared data set"):
        store.open_set(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"format": 1}', '{"format": 1, "splits": 3}'])
def test_damaged_manifest(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged.*prepare it again"):
        store.open_set(folder)


@pytest.mark.parametrize("key", ["classes", "modalities", "splits"])
def test_changed_manifest(folder, key):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest[key] = manifest[key][::-1] if key == "classes" else dict(list(manifest[key].items())[:1])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is damaged"):
        store.open_set(folder)


def test_other_format(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InputError, match=r"format 99.*reads format 1"):
        store.open_set(folder)


SENTENCE = r"train-00001\.arrow.*Delete the folder.*prepare it again"


@pytest.mark.parametrize("damage", ["cut", "longer", "delete", "folder"])
def test_damaged_shard(folder, damage):
    path = folder / "train-00001.arrow"
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "longer":
        path.write_bytes(data + b"0")
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(InputError, match=SENTENCE):
        store.open_set(folder).split("train")
    with pytest.raises(InputError, match=SENTENCE):
        store.open_set(folder).verify()


def replace_shard(folder, rows_of_shard, modalities=MODALITIES):
    """Write another shard in the place of the second, with a manifest that knows no sizes, as of former versions."""
    store.write_shard(folder / "train-00001.arrow", rows_of_shard, modalities)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for shard in manifest["splits"]["train"]["shards"]:
        del shard["bytes"]
    store.write_json(folder / "manifest.json", manifest)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (rows(7)[4:6], "other rows"),
        ([{**row, "label": 3} for row in rows(7)[4:]], "labels that are no class"),
        ([{**row, "label": -1} for row in rows(7)[4:]], "labels that are no class"),
        ([{**row, "label": None} for row in rows(7)[4:]], "labels that are no class"),
    ],
)
def test_a_shard_of_other_rows_or_labels(folder, other, what):
    replace_shard(folder, other)
    with pytest.raises(InputError, match=what):
        store.open_set(folder).split("train")


def test_a_shard_of_other_columns(folder):
    sound = {"sound": MODALITIES["sound"]}
    replace_shard(folder, [{key: row[key] for key in ("id", "label", "sound")} for row in rows(7)[4:]], sound)
    with pytest.raises(InputError, match="other columns"):
        store.open_set(folder).split("train")


def test_opening_reads_no_media_and_verifying_reads_all(folder, monkeypatch):
    """A flipped bit of a waveform is not seen when the set is opened, which hashes nothing, but on request."""
    path = folder / "train-00001.arrow"
    data = path.read_bytes()
    place = data.index(rows(7)[6]["sound"].tobytes())
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    prepared = store.open_set(folder)
    with pytest.raises(InputError, match=r"SHA-256 is not the one of the manifest.*prepare it again"):
        prepared.verify()
    path.write_bytes(data)
    assert prepared.verify() == sum(file.stat().st_size for file in folder.glob("*.arrow"))

    def hashed(path):
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr(store, "file_hash", hashed)
    assert len(prepared.split("train")) == 7


MUTATIONS = """
import random, sys
from pathlib import Path
from balancemm_cli.data import store
from balancemm_cli.errors import InputError
folder = Path(sys.argv[1])
path = folder / "train-00001.arrow"
whole, draw, refused = path.read_bytes(), random.Random(0), 0
for _ in range(1500):
    data = bytearray(whole)
    for _ in range(draw.choice([1, 1, 4])):
        other = draw.choice([b"\\xff", draw.randbytes(1), b"\\0\\0\\0\\x7f", draw.randbytes(4)])
        place = draw.randrange(len(data) - len(other))
        data[place : place + len(other)] = other
    path.write_bytes(data)
    try:
        split = store.open_set(folder).split("train")
    except InputError:
        refused += 1
        continue
    split.ids, split.labels
    for modality in ("sound", "front"):
        split.lengths(modality)
        for row in set(split.holders(modality).tolist()):
            value = split.array(modality, row).sum() if modality == "sound" else split.frames(modality, row)
print(refused)
"""


@pytest.mark.parametrize("sizes", [True, False])
def test_damage_in_offsets_and_metadata_never_ends_the_process(folder, sizes):
    """Bytes anywhere in a shard are changed, 1,500 times: a sentence or values, no signal and no other error."""
    if not sizes:
        replace_shard(folder, rows(7)[4:])
    done = subprocess.run(
        [sys.executable, "-c", MUTATIONS, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 300


def test_the_content_hash_is_of_rows_and_bytes_alone(folder):
    """Sizes and descriptions came later; sets and runs from before keep their hash."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    splits = {
        "train": {
            "prepared": 7,
            "shards": [
                {"file": shard["file"], "rows": shard["rows"], "sha256": shard["sha256"]}
                for shard in manifest["splits"]["train"]["shards"]
            ],
        },
        "test": {"prepared": 0, "shards": []},
    }
    text = json.dumps([1, list("abc"), [list(item) for item in MODALITIES.items()], splits], sort_keys=True)
    assert manifest["content_hash"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_manifest_of_a_former_version(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    store.write_json(folder / "manifest.json", {**manifest, "protocol": "by actor"})
    former = store.open_set(folder)
    assert former.split_description == "by actor"
    assert (former.reader, former.split_name, former.official_lists) == (None, None, None)


def test_a_failed_write_leaves_nothing(tmp_path):
    def broken():
        yield rows(2)[1]
        raise RuntimeError("decoder")

    with pytest.raises(RuntimeError):
        store.write_shard(tmp_path / "a.arrow", broken(), MODALITIES)
    assert list(tmp_path.iterdir()) == []


def test_rejected_is_csv(tmp_path):
    line = {"id": "a,b", "split": "train", "file": 'x "y".mp4', "reason": "truncated: 1, 2 ü"}
    store.write_rejected(tmp_path / "rejected.csv", [line])
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [line]
