"""Which data a prepared set holds, and whether the media are those that it was made from: never by a name or a size."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from media_files import contents, tone, write_csv, write_wav
from warm_python import python

from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.data.datasets import plan as plan_module
from balancemm_cli.data.preparing import prepare as prepare_module
from balancemm_cli.data.preparing import sources
from balancemm_cli.data.preparing.parts import Part, join_parts
from balancemm_cli.data.preparing.prepare import (
    Request,
    data_set_of,
    embedded,
    prepare_dataset,
    prepare_folder,
)
from balancemm_cli.data.preparing.sources import recall
from balancemm_cli.data.store import open_set, write_json
from balancemm_cli.errors import InputError, UsageError

ROOT = Path(__file__).parents[1]
OTHER = tone(0.2, frequency=900)
ALREADY = "is prepared already, from the same media and lists."


@pytest.fixture
def table(tmp_path):
    """A CSV of eight sounds of equal size."""
    return write_table(tmp_path / "media" / "my.csv")


def write_table(path, first=300):
    path.parent.mkdir(exist_ok=True)
    rows = []
    for number in range(8):
        write_wav(path.parent / f"{number}.wav", tone(0.2, frequency=first + 40 * number))
        rows.append(f"{number},{'ab'[number % 2]},{'train' if number < 6 else 'test'},{number}.wav")
    return write_csv(path, "id,label,split,audio", *rows)


def replace_sound(path):
    """Another sound of equal size, with the times of the one before, as `cp --preserve` keeps them."""
    before = path.stat()
    write_wav(path, OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def prepare(table, out, **options):
    said = []
    prepared = prepare_dataset("manifest", table, out=out, workers=1, on_message=said.append, **options)
    return prepared, said


# Which data


@pytest.mark.parametrize(
    "name", ["crema-d", "Crema-D", "crema-d-speaker-independent", "synthetic", "ucf-101-2"]
)
def test_a_csv_cannot_take_the_name_of_a_data_set(table, tmp_path, name):
    path = table.rename(table.with_name(f"{name}.csv"))
    for out in (None, tmp_path / "out"):
        with pytest.raises(InputError, match=rf"'{name}', which is a name of data set '.*Rename the file\."):
            prepare_dataset("manifest", path, out=out, workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["crema-d", "CREMA-D", "crema-d-relearn", "ucf-101-2", "synthetic-modalities-8-loud"]
)
def test_a_folder_cannot_make_one_set_pass_for_another(table, tmp_path, name):
    with pytest.raises(
        UsageError, match=rf"{name}, which is a name of data set '.*' would pass|would pass for it"
    ):
        prepare_dataset("manifest", table, out=tmp_path / name, workers=1)
    assert not (tmp_path / name).exists()


def test_names_that_are_no_data_sets():
    assert data_set_of("my") is data_set_of("crema-d-mine") is data_set_of("synthetic-modalities-9") is None
    assert data_set_of("crema-d") == "crema-d" and data_set_of("synthetic-ave") == "synthetic-ave"
    assert data_set_of("kinetics-sounds-val") == "kinetics-sounds"
    Request("crema-d", out=Path("somewhere/crema-d"), options={"split": "relearn"})
    request = embedded(Path("data/synthetic-modalities-8-loud"))
    assert request and request.name == "synthetic-modalities"
    assert request.options["modalities"] == "8" and request.options["noise"] == "loud"
    assert embedded(Path("data/crema-d")) is None


def test_the_manifest_says_which_reader_whatever_the_names_are(table, tmp_path):
    """Also of a set that was prepared in parts and joined; the folder may be renamed afterwards."""
    whole, _ = prepare(table, tmp_path / "whole")
    expected = {"reader": "manifest", "split_name": "own", "official_lists": None}
    assert {key: whole.manifest[key] for key in expected} == expected
    for number in (1, 2):
        prepare_folder(Request("manifest", table, out=tmp_path / "set"), Part(number, 2), workers=1)
    join_parts(tmp_path / "set")
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    (tmp_path / "set").rename(tmp_path / "crema-d")
    passed = open_set(tmp_path / "crema-d")
    assert (passed.reader, passed.split_name, passed.official_lists) == ("manifest", "own", None)


def test_every_data_set_has_names_of_splits():
    for name, dataset in DATASETS.items():
        assert dataset.name == name and dataset.SPLIT_NAMES and all(dataset.SPLIT_NAMES)


# The same media


def test_replaced_media_of_equal_size_are_noticed(table, tmp_path):
    prepare(table, tmp_path / "set")
    assert ALREADY in prepare(table, tmp_path / "set")[1][-1]
    replace_sound(table.parent / "3.wav")
    with pytest.raises(InputError, match="was prepared from other media"):
        prepare(table, tmp_path / "set")


def test_another_csv_of_the_same_name_with_other_files(table, tmp_path):
    """The same ids, labels and file names, with files of the same sizes, in another folder."""
    prepare(table, tmp_path / "set")
    other = write_table(tmp_path / "other" / "my.csv", first=320)
    assert other.read_bytes() == table.read_bytes()
    with pytest.raises(InputError, match="was prepared from other media"):
        prepare(other, tmp_path / "set")
    copy = shutil.copytree(table.parent, tmp_path / "copy") / "my.csv"
    assert ALREADY in prepare(copy, tmp_path / "set")[1][-1]  # the same content


def test_replaced_media_of_a_part_are_noticed(table, tmp_path):
    request = Request("manifest", table, out=tmp_path / "set")
    prepare_folder(request, Part(1, 1), workers=1)
    replace_sound(table.parent / "3.wav")
    with pytest.raises(InputError, match="was prepared from other media"):
        prepare_folder(request, Part(1, 1), workers=1)


def test_media_that_are_replaced_while_interrupted(table, tmp_path, monkeypatch):
    """The shards that were done are kept where their files are as they were, and only there."""
    monkeypatch.setattr(prepare_module, "SHARD_SAMPLES", 2)
    monkeypatch.setattr(prepare_module, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(table, tmp_path / "set")
    monkeypatch.undo()
    monkeypatch.setattr(prepare_module, "SHARD_SAMPLES", 2)
    replace_sound(table.parent / "3.wav")
    prepared, said = prepare(table, tmp_path / "set")
    assert "Going on: 6 of 8 clips were done before." in said
    fresh, _ = prepare(table, tmp_path / "fresh")
    assert contents(prepared.folder) == contents(fresh.folder)
    found = prepared.split("train").array("audio", 3)
    np.testing.assert_array_equal(found, OTHER)


def old_enough(monkeypatch):
    """Wait until no file counts as just written."""
    monkeypatch.setattr(plan_module, "YOUNG_NS", 10**7)
    time.sleep(0.05)


def test_what_did_not_change_is_not_read_again(table, tmp_path, monkeypatch):
    """Nor what was only touched, once its content was compared; a copied folder is compared whole, once."""
    old_enough(monkeypatch)
    prepare(table, tmp_path / "set")
    prepare(table, tmp_path / "set")
    hashed = []
    content = plan_module.Clip.content
    monkeypatch.setattr(plan_module.Clip, "content", lambda clip: hashed.append(clip.name) or content(clip))
    assert ALREADY in prepare(table, tmp_path / "set")[1][-1] and hashed == []
    os.utime(table.parent / "3.wav")
    time.sleep(0.05)
    for expected in (["3.wav"], []):
        assert ALREADY in prepare(table, tmp_path / "set")[1][-1] and hashed == expected
        hashed.clear()
    shutil.copytree(tmp_path / "set", tmp_path / "elsewhere" / "set")
    for expected in (8, 0):
        assert ALREADY in prepare(table, tmp_path / "elsewhere" / "set")[1][-1] and len(hashed) == expected
        hashed.clear()


def test_a_file_that_was_written_just_now_is_read_again(table, tmp_path):
    """Times of files are kept coarsely: a second write within the same moment would not show."""
    prepare(table, tmp_path / "set")
    (table.parent / "3.wav").write_bytes((table.parent / "3.wav").read_bytes())
    prepare(table, tmp_path / "set")
    assert recall(tmp_path / "set")["3.wav"][0] == plan_module.YOUNG


def test_the_memory_is_beside_the_folder_and_decides_nothing(table, tmp_path):
    """Two preparations give the same bytes; a memory that is damaged, foreign or absent costs time alone."""
    prepare(table, tmp_path / "one")
    prepare(table, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert str(table.stat().st_ino) not in (tmp_path / "one" / "manifest.json").read_text()
    for text in ("{", "[]", '{"files": {"3.wav": 1}}', '{"files": {"3.wav": ["0-0-0-0", "0"]}}'):
        (tmp_path / ".one.sources").write_text(text)
        assert ALREADY in prepare(table, tmp_path / "one")[1][-1]
    (tmp_path / ".one.sources").unlink()
    replace_sound(table.parent / "3.wav")
    with pytest.raises(InputError, match="was prepared from other media"):
        prepare(table, tmp_path / "one")


def test_many_files_are_compared_in_processes(table, tmp_path, monkeypatch):
    prepare(table, tmp_path / "set")
    (tmp_path / ".set.sources").unlink()
    monkeypatch.setattr(sources, "BATCH", 3)
    seen = []
    prepare_dataset("manifest", table, out=tmp_path / "set", workers=2, on_progress=lambda *x: seen.append(x))
    assert seen[-1] == ("compare", 8, 8)


def test_a_set_of_a_former_version(table, tmp_path):
    """It is left as it is and said to be unknown; other lists are still noticed."""
    prepared, _ = prepare(table, tmp_path / "set")
    manifest = {
        key: value
        for key, value in prepared.manifest.items()
        if key not in ("reader", "split_name", "official_lists", "split_description")
    }
    write_json(tmp_path / "set" / "manifest.json", {**manifest, "protocol": "", "plan": "0"})
    said = prepare(table, tmp_path / "set")[1]
    assert "a former version made it, which did not record the content of the media" in said[-1]
    table.write_text(table.read_text().replace("5,b,train", "5,a,train"))
    with pytest.raises(InputError, match="was prepared from other media, lists or settings"):
        prepare(table, tmp_path / "set")
    assert "protocol" in json.loads((tmp_path / "set" / "manifest.json").read_bytes())


# A data set of another package

SOUNDS = '''
"""A data set of another package."""

from pathlib import Path

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, waveform


class Sounds(Dataset):
    """Sounds: eight of them in two classes."""

    name = "sounds"
    HOW_TO_GET = "Write them."
    SPLIT_NAMES = ("first",)

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """All eight."""
        samples = [
            Sample(str(n), "train" if n < 6 else "test", "ab"[n % 2], {"audio": Clip(source, f"{n}.wav")})
            for n in range(8)
        ]
        name = (source / "name").read_text() if (source / "name").exists() else self.name
        kinds = {"audio": waveform(16000)}
        return Plan(name, samples, ["a", "b"], kinds, split_name="first", reader="crema-d")
'''


def test_a_data_set_of_another_package(table, tmp_path):
    """It is listed and prepared; what it says to be is what it is announced as."""
    package = tmp_path / "packages"
    about = package / "my_sounds-1.0.dist-info"
    about.mkdir(parents=True)
    (package / "my_sounds.py").write_text(SOUNDS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-sounds\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bmm.datasets]\nsounds = my_sounds:Sounds\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])}

    def bmm(*words):
        return python("-m", "balancemm_cli", *words, folder=tmp_path, environment=environment)

    assert "sounds" in bmm("list", "datasets").stdout
    done = bmm("prepare", "sounds", "--source", table.parent, "--workers", "1")
    assert done.returncode == 0, done.stderr
    prepared = open_set(tmp_path / "data" / "prepared" / "sounds")
    assert (prepared.reader, prepared.split_name, prepared.official_lists) == ("sounds", "first", None)
    (table.parent / "name").write_text("crema-d")
    done = bmm("prepare", "sounds", "--source", table.parent, "--out", "out")
    assert done.returncode == 3 and "a name of data set 'crema-d'" in done.stderr
