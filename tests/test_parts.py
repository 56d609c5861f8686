"""balancemm_cli.data.preparing.parts: a set prepared in parts and joined has the bytes of one prepared whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media_files import contents, tone, write_csv, write_video, write_wav

from balancemm_cli.data import store
from balancemm_cli.data.preparing import prepare as module
from balancemm_cli.data.preparing.parts import Part, join_parts, parse_part
from balancemm_cli.data.preparing.prepare import Request, prepare_folder, prepare_plan
from balancemm_cli.errors import InputError, UsageError

ROOT = Path(__file__).parents[1]
SHARD = 16  # samples a shard in these tests: three of train, two of test


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A manifest of 60 short videos with sound: some are silent, one is missing."""
    folder = tmp_path_factory.mktemp("media")
    lines = []
    for index in range(60):
        name = f"{index:02d}.mkv"
        samples = tone(0.4, frequency=200 + index) if index % 10 else np.zeros(6400, np.int16)
        if index != 7:
            write_video(folder / name, [index, 255 - index], 5, 80, 120, samples)
        lines.append(f"{index},{'ab'[index % 2]},{'test' if index % 3 == 0 else 'train'},{name},{name}")
    return write_csv(folder / "small.csv", "id,label,split,audio,visual", *lines)


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    before, module.SHARD_SAMPLES = module.SHARD_SAMPLES, SHARD
    yield
    module.SHARD_SAMPLES = before


def planned(source):
    """The plan with a note and two defects that are kept, so that all that a manifest holds is there."""
    plan = Request("manifest", source).plan
    samples = [replace(s, defect="too loud") if s.id in ("5", "42") else s for s in plan.samples]
    return replace(plan, samples=samples, notes=["A note."], split_description="ours")


def prepare(source, out, number=0, of=0, **options):
    part = Part(number, of) if of else None
    return prepare_plan(planned(source), out, part, workers=1, allow_missing=True, **options)


@pytest.fixture(scope="module")
def reference(source, tmp_path_factory):
    """The files of the set prepared whole."""
    return contents(prepare(source, tmp_path_factory.mktemp("whole") / "set"))


@pytest.fixture(scope="module")
def halves(source, tmp_path_factory):
    """A folder with the two parts of `set`."""
    folder = tmp_path_factory.mktemp("halves")
    for number in (1, 2):
        assert prepare(source, folder / "set", number, 2) == folder / f"set.part-{number}-of-2"
    return folder


@pytest.fixture
def parts(halves, tmp_path):
    """A copy of the two parts."""
    return Path(shutil.copytree(halves, tmp_path / "parts"))


def test_joined_is_what_whole_is(parts, reference):
    before = contents(parts)
    said, seen = [], []
    joined = join_parts(parts / "set", lambda *x: seen.append(x), said.append)
    assert contents(parts / "set") == reference
    assert joined.manifest["notes"] == ["A note."] and list(joined.manifest["defects_kept"]) == ["42", "5"]
    assert joined.manifest["rejected"] == {"missing": 1, "silent": 6}
    assert said[0] == "A note." and "Joined 2 parts; they are kept" in said[1]
    assert seen[-1] == ("join", 5, 5)
    after = {name: data for name, data in contents(parts).items() if not name.startswith("set/")}
    assert after.pop(".set.sources") and after == before
    names = sorted(path.name for path in parts.glob("[!.]*"))
    assert names == ["set", "set.part-1-of-2", "set.part-2-of-2"]
    shard = parts / "set" / "train-00000.arrow"
    assert shard.samefile(next(parts.glob("*part*/train-00000.arrow")))  # takes no space twice
    join_parts(parts / "set", on_message=said.append)
    assert "is prepared already" in said[-1]


def test_more_parts_than_shards(source, reference, tmp_path):
    for number in range(1, 8):
        prepare(source, tmp_path / "set", number, 7)
    assert [path.name for path in (tmp_path / "set.part-7-of-7").iterdir()] == ["part.json"]
    join_parts(tmp_path / "set")
    assert contents(tmp_path / "set") == reference


def test_copies_where_files_cannot_be_linked(parts, reference, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    join_parts(parts / "set")
    assert contents(parts / "set") == reference


def test_a_part_that_is_there(source, halves, tmp_path):
    said = []
    before = contents(halves / "set.part-1-of-2")
    prepare(source, halves / "set", 1, 2, on_message=said.append)
    assert "set.part-1-of-2 is prepared already" in said[-1]
    assert contents(halves / "set.part-1-of-2") == before
    shutil.copytree(halves / "set.part-1-of-2", tmp_path / "set.part-1-of-2")
    other = replace(planned(source), official_lists=False)
    with pytest.raises(InputError, match=r"part-1-of-2 was prepared from other media, lists.*--out"):
        prepare_plan(other, tmp_path / "set", Part(1, 2), 1, True)


def test_a_whole_set_that_is_there_is_told(source, parts):
    join_parts(parts / "set")
    shutil.rmtree(parts / "set.part-1-of-2")
    said = []
    assert prepare(source, parts / "set", 1, 2, on_message=said.append) == parts / "set"
    assert "set is prepared already" in said[-1] and not (parts / "set.part-1-of-2").exists()
    other = replace(planned(source), official_lists=False)
    with pytest.raises(InputError, match="set was prepared from other media"):
        prepare_plan(other, parts / "set", Part(1, 2), 1, True)


def rewrite(path, **changes):
    """Change part.json as somebody would who knows its hash."""
    content = {**json.loads(path.read_bytes()), **changes}
    del content["hash"]
    path.write_text(json.dumps({**content, "hash": store.digest(content)}))


def damage(parts, how):
    one, two = parts / "set.part-1-of-2", parts / "set.part-2-of-2"
    content = json.loads((two / "part.json").read_bytes())
    match how:
        case "missing":
            shutil.rmtree(two)
        case "all missing":
            shutil.rmtree(one)
            shutil.rmtree(two)
        case "unfinished":
            (two / "part.json").unlink()
        case "duplicate":
            shutil.rmtree(two)
            shutil.copytree(one, two)
        case "divisions":
            (parts / "set.part-3-of-16").mkdir()
        case "foreign":
            rewrite(two / "part.json", set={**content["set"], "splits_hash": "0"})
        case "versions":
            rewrite(two / "part.json", set={**content["set"], "tools": {"av": "1"}})
        case "format":
            rewrite(two / "part.json", format=9)
        case "flipped":
            (two / "part.json").write_text((two / "part.json").read_text().replace("train", "trein", 1))
        case "no json":
            (two / "part.json").write_text("{")
        case "shape":
            rewrite(two / "part.json", set=[1])
        case "path":
            shards = {f"../../{file}": record for file, record in content["shards"].items()}
            described = {**content["set"], "splits": {"train": {"expected": 1, "shards": ["x", *shards]}}}
            rewrite(two / "part.json", set=described, shards=shards)
        case "shard":
            data = bytearray((two / "train-00001.arrow").read_bytes())
            data[len(data) // 2] ^= 1
            (two / "train-00001.arrow").write_bytes(data)
        case "no shard":
            (two / "train-00001.arrow").unlink()
        case "other":
            (parts / "set").mkdir()
            (parts / "set" / "thesis.txt").touch()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"1 of the 2 parts of .*set are missing: 2\. Make them with --part 2/2"),
        ("all missing", r"There are no parts set\.part-1-of-N … in .*--out"),
        ("unfinished", r"set\.part-2-of-2 holds no part\.json, so it is no finished part"),
        ("duplicate", r"set\.part-2-of-2 holds part 1 of 2, not part 2 of 2"),
        ("divisions", r"parts of set of several divisions \(of 2, of 16\)"),
        ("foreign", r"part-2-of-2 is a part of another set than .*part-1-of-2: 'splits_hash'"),
        ("versions", r"another set than .*: 'tools' in their part\.json differs.*versions"),
        ("format", r"part\.json is of format 9"),
        ("flipped", r"part\.json is damaged\. Delete the folder"),
        ("no json", r"part\.json is damaged"),
        ("shape", r"part\.json is damaged"),
        ("path", r"part\.json is damaged"),
        ("shard", r"part-2-of-2/train-00001\.arrow is damaged"),
        ("no shard", r"part-2-of-2/train-00001\.arrow is missing"),
        ("other", r"set exists and is no prepared data set"),
    ],
)
def test_parts_that_cannot_be_joined(parts, how, message):
    damage(parts, how)
    before = contents(parts)
    with pytest.raises(InputError, match=message) as caught:
        join_parts(parts / "set")
    assert "\n" not in str(caught.value)
    kept = {name: data for name, data in contents(parts).items() if not name.startswith(".set.partial/")}
    assert kept == before


def test_a_class_that_was_rejected_whole(tmp_path):
    for name, samples in (("a", tone(0.3)), ("b", np.zeros(4800, np.int16))):
        write_wav(tmp_path / f"{name}.wav", samples)
    lines = ["1,a,train,a.wav", "2,b,train,b.wav", "3,a,test,a.wav"]
    table = write_csv(tmp_path / "m.csv", "id,label,split,audio", *lines)
    request = Request("manifest", table, out=tmp_path / "set")
    for number in (1, 2):
        prepare_folder(request, Part(number, 2), workers=1)
    with pytest.raises(InputError, match=r"class 'b' has no sample.*rejected\.csv says why"):
        join_parts(tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "-1/2", "1/2/3", "a/b", "1/0", "½/2"])
def test_what_is_no_part(text):
    with pytest.raises(UsageError, match=r"--part is '.*'; write it as 3/16"):
        parse_part(text)


def test_what_is_a_part():
    assert parse_part("3/16") == Part(3, 16) and parse_part("1/1") == Part(1, 1)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_parts
if __name__ == "__main__":
    test_parts.module.SHARD_SAMPLES = test_parts.SHARD
    print("ready", flush=True)
    test_parts.prepare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), 2)
"""


def run(*command, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, stdout=-1, stderr=-1, text=True
    )


@pytest.mark.long
def test_killed_parts_at_the_same_time(source, reference, tmp_path):
    """Both at once and killed, then resumed: neither hinders the other."""
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(ROOT / "tests")))
    processes = [run("script.py", source, tmp_path / "set", number, cwd=tmp_path) for number in (1, 2)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for number, process in enumerate(processes, 1):
        while not (tmp_path / f".set.part-{number}-of-2.partial" / "set").exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / f"set.part-{number}-of-2").exists()
    processes = [run("script.py", source, tmp_path / "set", number, cwd=tmp_path) for number in (1, 2)]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    join_parts(tmp_path / "set")
    assert contents(tmp_path / "set") == reference


def test_the_command(tmp_path):
    """Two parts of the built-in synthetic data at once, of which the media are not written yet."""
    raw = tmp_path / "data" / "raw" / "synthetic"
    raw.mkdir(parents=True)
    store.write_json(raw / "design.json", {"design": 1, "counts": {"train": 60, "test": 12}})
    bmm = ("-m", "balancemm_cli", "prepare", "synthetic")
    started = [run(*bmm, "--part", f"{number}/2", "--workers", "1", cwd=tmp_path) for number in (1, 2)]
    for number, process in enumerate(started, 1):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and out == f"data/prepared/synthetic.part-{number}-of-2\n", err
        assert f"This is part {number} of 2." in err
    shutil.rmtree(raw)
    process = run(*bmm, "--join", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "data/prepared/synthetic\n", err
    assert "train: 60 of 60 samples prepared." in err
    process = run(*bmm, "--join", "--part", "1/2", cwd=tmp_path)
    assert "--part and --join do not go together" in process.communicate(timeout=60)[1]
    assert process.returncode == 2
