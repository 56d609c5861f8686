"""balancemm_cli.data.preparing.prepare: the same bytes whatever happens on the way, and clear refusals."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from media_files import contents, enlarge, small_disk, tone, write_csv, write_video, write_wav
from warm_python import python

from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, waveform
from balancemm_cli.data.preparing import prepare as module
from balancemm_cli.data.preparing.prepare import prepare_dataset, prepare_plan
from balancemm_cli.data.store import open_set
from balancemm_cli.errors import InputError, UsageError

ROOT = Path(__file__).parents[1]
SAMPLES = 180
SHARD = 8  # samples a shard in these tests, so that there are several

SCRIPT = """
import sys
from pathlib import Path
from balancemm_cli.data.preparing import prepare
if __name__ == "__main__":
    prepare.SHARD_SAMPLES = {shard}
    source, out, workers = sys.argv[1:4]
    print("ready", flush=True)
    prepare.prepare_dataset("manifest", Path(source), out=Path(out), workers=int(workers))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A manifest of short videos with sound, some of them silent."""
    folder = tmp_path_factory.mktemp("media")
    lines = []
    for index in range(SAMPLES):
        name = f"{index:03d}.mkv"
        samples = tone(0.6, frequency=200 + index) if index % 10 else np.zeros(9600, np.int16)
        write_video(folder / name, [index, index // 2, 255 - index], 5, 160, 240, samples)
        lines.append(f"{index},{'ab'[index % 2]},{'test' if index % 3 == 0 else 'train'},{name},{name}")
    return write_csv(folder / "small.csv", "id,label,split,audio,visual", *lines)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_SAMPLES", SHARD)


@pytest.fixture(scope="module")
def reference(source, tmp_path_factory):
    """The files of an undisturbed call with one worker."""
    out = tmp_path_factory.mktemp("reference") / "set"
    before, module.SHARD_SAMPLES = module.SHARD_SAMPLES, SHARD
    prepare_dataset("manifest", source, out=out, workers=1)
    module.SHARD_SAMPLES = before
    return contents(out)


def start(source, out, workers=2):
    """Prepare in another process, in a session of its own, once it is about to begin."""
    script = out.parent / "script.py"
    script.write_text(SCRIPT.format(shard=SHARD))
    command = [sys.executable, str(script), str(source), str(out), str(workers)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_result(source, tmp_path):
    seen, said = [], []
    prepared = prepare_dataset(
        "manifest",
        source,
        out=tmp_path / "set",
        workers=2,
        on_progress=lambda *x: seen.append(x),
        on_message=said.append,
    )
    assert prepared.expected == {"test": 60, "train": 120}
    assert prepared.manifest["rejected"] == {"silent": 18}
    assert sum(prepared.counts.values()) == SAMPLES - 18
    assert seen[-1] == ("decode", SAMPLES, SAMPLES) and said == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.sources", "set"]
    text = (tmp_path / "set" / "manifest.json").read_text()
    assert str(tmp_path) not in text and str(source.parent) not in text
    again = prepare_dataset("manifest", source, out=tmp_path / "set", on_message=said.append)
    assert again.content_hash == prepared.content_hash and "is prepared already" in said[0]


def test_two_workers_give_the_same_bytes(source, reference, tmp_path):
    prepare_dataset("manifest", source, out=tmp_path / "set", workers=2)
    assert contents(tmp_path / "set") == reference


@pytest.mark.long
def test_kills_at_random_moments(source, reference, tmp_path):
    """SIGKILL of the parent: never a half-written folder, no worker left behind, the same bytes at the end."""
    out = tmp_path / "set"
    moments = random.Random(3)
    kills = 0
    while not out.exists() and kills < 5:
        process = start(source, out, workers=1 + kills % 2)
        time.sleep(moments.uniform(0.05, 0.9))
        process.kill()
        process.communicate(timeout=20)
        kills += process.returncode == -signal.SIGKILL
        if out.exists():
            break
        assert not (out / "manifest.json").exists()
    assert kills >= 2
    said = []
    prepare_dataset("manifest", source, out=out, workers=2, on_message=said.append)
    assert contents(out) == reference
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".set.sources"]


def wait_for_shards(work, count):
    for _ in range(400):
        if (work / "done").is_dir() and len(list((work / "done").glob("*.json"))) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("no shard in time")


def test_a_later_call_keeps_the_shards_that_are_done(source, reference, tmp_path):
    process = start(source, tmp_path / "set", workers=1)
    work = tmp_path / ".set.partial"
    wait_for_shards(work, 3)
    process.kill()
    process.communicate(timeout=20)
    if (tmp_path / "set").exists():
        pytest.skip("finished before it was killed")
    shards = [work / "set" / record.stem for record in (work / "done").glob("[!.]*.json")]
    done = {path: path.stat().st_mtime_ns for path in shards}
    damaged = min(done)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (work / "set" / "left over").touch()
    said = []
    prepare_dataset("manifest", source, out=tmp_path / "set", workers=1, on_message=said.append)
    assert "Going on: " in said[0] and f"{SAMPLES} clips were done before" in said[0]
    assert contents(tmp_path / "set") == reference
    for path, moment in done.items():
        kept = (tmp_path / "set" / path.name).stat().st_mtime_ns == moment
        assert kept == (path != damaged)


def test_interrupt_keeps_state_and_says_so(source, reference, tmp_path):
    process = start(source, tmp_path / "set", workers=2)
    wait_for_shards(tmp_path / ".set.partial", 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, stderr = process.communicate(timeout=20)
    if process.returncode == 0:
        pytest.skip("finished before it was interrupted")
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("KeyboardInterrupt: Interrupted. Its state is kept in")
    assert stderr.count("Traceback") == 1 + stderr.count("During handling") + stderr.count("direct cause")
    assert not (tmp_path / "set").exists()
    prepare_dataset("manifest", source, out=tmp_path / "set", workers=2)
    assert contents(tmp_path / "set") == reference


def children(pid):
    """The workers among the child processes."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_worker_that_dies_is_named_and_the_call_goes_on(source, reference, tmp_path):
    process = start(source, tmp_path / "set", workers=1)
    wait_for_shards(tmp_path / ".set.partial", 1)
    for child in children(process.pid):
        os.kill(child, signal.SIGKILL)
    _, stderr = process.communicate(timeout=20)
    if process.returncode == 0:
        pytest.skip("finished before the worker was killed")
    assert "InputError: A worker process died, most likely for lack of memory" in stderr
    assert not (tmp_path / "set").exists()
    prepare_dataset("manifest", source, out=tmp_path / "set", workers=1)
    assert contents(tmp_path / "set") == reference


def test_one_call_at_a_time(source, tmp_path):
    process = start(source, tmp_path / "set", workers=1)
    wait_for_shards(tmp_path / ".set.partial", 1)
    try:
        if process.poll() is None:
            with pytest.raises(InputError, match="Another process is preparing"):
                prepare_dataset("manifest", source, out=tmp_path / "set")
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_another_plan_is_refused(source, tmp_path):
    lines = source.read_text().splitlines()
    part = write_csv(source.with_name("part.csv"), *lines[:20])
    prepare_dataset("manifest", part, out=tmp_path / "set", workers=1)
    before = contents(tmp_path / "set")
    write_csv(part, *lines[:21])
    with pytest.raises(InputError, match=r"prepared from other media, lists or settings.*--out"):
        prepare_dataset("manifest", part, out=tmp_path / "set")
    assert contents(tmp_path / "set") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(InputError, match="exists and is no prepared data set"):
        prepare_dataset("manifest", part, out=tmp_path / "other")
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_bytes())
    (tmp_path / "set" / "manifest.json").write_text(json.dumps({**manifest, "format": 7}))
    with pytest.raises(InputError, match="format 7"):
        prepare_dataset("manifest", part, out=tmp_path / "set")


def test_a_damaged_shard_is_found(source, tmp_path):
    prepared = prepare_dataset("manifest", source, out=tmp_path / "set", workers=2)
    path = prepared.folder / "train-00001.arrow"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match=r"train-00001\.arrow is damaged"):
        prepare_dataset("manifest", source, out=tmp_path / "set")


class Hostile(Clip):
    """A clip that fails in a way that nobody foresaw where its file says so."""

    def read(self, spec, waived):
        error = {"1": ValueError("cannot reshape"), "2": MemoryError()}.get(self.path.read_text())
        if error:
            raise error
        return np.ones(100, np.int16)


def test_a_failure_that_nobody_foresaw_costs_its_sample_alone(tmp_path):
    clips = [Hostile(tmp_path, f"{number}.npy") for number in range(20)]
    for number, clip in enumerate(clips):
        clip.path.write_text({12: "1", 13: "2"}.get(number, "0"))
    samples = [Sample(f"s{number}", "train", "a", {"audio": clip}) for number, clip in enumerate(clips)]
    prepare_plan(Plan("hostile", samples, ["a"], {"audio": waveform(8000)}), tmp_path / "set", workers=1)
    assert open_set(tmp_path / "set").counts == {"train": 18}
    rejected = (tmp_path / "set" / "rejected.csv").read_text()
    assert "s12,train,12.npy,unforeseen: reading fails" in rejected
    assert "(ValueError: cannot reshape)" in rejected and "13.npy,too large" in rejected


def test_files_that_left_a_class_empty_are_looked_at_again(tmp_path):
    """Also where the new file has the size of the old one."""
    for name, samples in (("a", tone(0.5)), ("b", np.zeros(8000, np.int16))):
        write_wav(tmp_path / f"{name}.wav", samples)
    csv = write_csv(tmp_path / "m.csv", "id,label,split,audio", "1,a,train,a.wav", "2,b,train,b.wav")
    with pytest.raises(InputError, match="class 'b' has no sample"):
        prepare_dataset("manifest", csv, out=tmp_path / "set", workers=1)
    write_wav(tmp_path / "b.wav", tone(0.5, frequency=900.0))
    prepared = prepare_dataset("manifest", csv, out=tmp_path / "set", workers=1)
    assert prepared.counts == {"train": 2}


def test_usage(tmp_path):
    with pytest.raises(UsageError, match=r"no data set 'crema_d'\. Did you mean 'crema-d'"):
        prepare_dataset("crema_d")
    with pytest.raises(UsageError, match="--workers is 0"):
        prepare_dataset("crema-d", tmp_path, workers=0)


@pytest.fixture
def public_folder():
    """A folder that every user may enter, which tmp_path is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_no_write_permission(public_folder):
    write_wav(public_folder / "a.wav", tone(0.5))
    csv = write_csv(public_folder / "m.csv", "id,label,split,audio", "x,a,train,a.wav")
    (public_folder / "locked").mkdir(mode=0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError) as caught:
            prepare_dataset("manifest", csv, out=public_folder / "locked" / "set", workers=1)
    finally:
        if root:
            os.seteuid(0)
    assert str(public_folder / "locked") in caught.value.filename


def test_a_disk_that_fills_up(source, reference, tmp_path):
    size = sum(map(len, reference.values())) // 2
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(InputError, match=r"no space left for .*free some and run the same command"):
            prepare_dataset("manifest", source, out=disk / "set", workers=2)
        assert not (disk / "set").exists()
        assert not list((disk / ".set.partial" / "set").glob("*.tmp"))
        enlarge(disk)
        prepare_dataset("manifest", source, out=disk / "set", workers=2)
        assert contents(disk / "set") == reference


def test_every_data_set_says_how_to_get_it():
    for data_set in DATASETS.values():
        assert data_set.__doc__ and data_set.HOW_TO_GET and callable(data_set.plan)


def test_the_names_are_cheap():
    code = "import sys; from balancemm_cli.data.datasets import DATASETS; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"av", "pyarrow", "torch", "numpy", "pandas"} & set(loaded.stdout.split())


def bmm(folder, *words):
    """Run the command in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return python("-m", "balancemm_cli", "prepare", *words, folder=folder, environment=environment)


def test_the_command(source, tmp_path):
    result = bmm(tmp_path, "manifest", "--source", source)
    assert result.returncode == 0 and result.stdout == "data/prepared/small\n"
    assert "train: 108 of 120 samples prepared, 12 rejected (12 silent)." in result.stderr
    assert "data/prepared/small/rejected.csv" in result.stderr
    assert (tmp_path / "data" / "prepared" / "small" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("crema-d",), 3, "There is no folder data/raw/crema-d. Get AudioWAV/"),
        (("creme-d",), 2, "There is no data set 'creme-d'. Did you mean 'crema-d'?"),
        (("manifest", "--source", "no.csv"), 3, "There is no file or folder no.csv."),
        (("synthetic", "--workers", "0"), 2, "--workers is 0"),
    ],
)
def test_errors_of_the_command(tmp_path, words, status, message):
    result = bmm(tmp_path, *words)
    assert result.returncode == status and result.stdout == ""
    assert result.stderr.startswith(f"bmm: {message}") and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_interrupting_the_command(source, tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "balancemm_cli",
            "prepare",
            "manifest",
            "--source",
            str(source),
            "--workers",
            "1",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    work = tmp_path / "data" / "prepared" / ".small.partial"
    for _ in range(400):
        if work.exists():
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr.startswith("bmm: Interrupted. Its state is kept in") and "Traceback" not in stderr


def test_an_interruption_as_the_work_begins_says_how_to_go_on(source, tmp_path, monkeypatch):
    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fcntl.flock", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"Its state is kept in .*The same command"):
        prepare_dataset("manifest", source, out=tmp_path / "small")
