"""Results in one file: packed, read again, and refused where damaged or foreign."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fuzz_bundles import fuzz, pack
from run_folders import write_demo, write_run
from test_report import bmm

from balancemm_cli.errors import InputError
from balancemm_cli.results.bundle import INDEX, unpack, write_bundle
from balancemm_cli.results.collection import collect

OUTSIDE = ("../a/b/result.json", "/tmp/bmm-outside/result.json")
EMPTY = {"size": 0, "sha256": hashlib.sha256().hexdigest()}


@pytest.fixture
def bundle(tmp_path):
    write_demo(tmp_path / "runs", 1)
    for folder in (tmp_path / "runs").rglob("result.json"):
        (folder.parent / "checkpoints").mkdir()
        (folder.parent / "checkpoints" / "1.pt").write_bytes(bytes(1000))
    assert write_bundle(collect([tmp_path / "runs"], "last").groups, tmp_path / "results.zip") == 6
    return tmp_path / "results.zip"


def edit(bundle, change):
    """Write the bundle's files again as `change` makes them; it gets and gives a dict of name to bytes."""
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in change(files).items():
            archive.writestr(name, content)


def with_index(files, /, **changes):
    return files | {INDEX: json.dumps(json.loads(files[INDEX]) | changes).encode()}


def test_a_report_on_a_bundle_is_that_on_its_runs(tmp_path, bundle):
    expected = bmm(cwd=tmp_path).stdout
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    assert bmm("results.zip", cwd=tmp_path).stdout == expected
    both = bmm("results.zip", "elsewhere", cwd=tmp_path)
    assert both.stdout == expected and "counted once" in both.stderr
    bmm("results.zip", "--out", "out", cwd=tmp_path)
    assert "bmm train" in (tmp_path / "out" / "report.md").read_text()
    assert len(list((tmp_path / "out" / "figures").iterdir())) == 9


def test_on_the_command_line_it_packs_what_is_chosen_without_weights(tmp_path, bundle):
    write_run(tmp_path / "runs", seed=7, status="diverged")
    done = bmm("--where", "method=opm", "--bundle", "opm.zip", cwd=tmp_path)
    assert done.stdout == "opm.zip\n" and "Packed 1 runs" in done.stderr and "diverged" in done.stderr
    with zipfile.ZipFile(tmp_path / "opm.zip") as archive:
        names = [name.split("/")[-1] for name in archive.namelist()]
    assert sorted(names) == [
        "config.toml", "environment.json", "history.jsonl", "index.json", "predictions.arrow", "result.json",
        "steps.arrow",
    ]  # fmt: skip


def test_the_same_runs_give_the_same_bytes(tmp_path, bundle):
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    write_bundle(collect([tmp_path / "copy"], "last").groups, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_every_flipped_byte_is_noticed_or_changes_nothing(tmp_path, bundle):
    whole = bundle.read_bytes()
    unpack(bundle, tmp_path / "whole")
    expected = {
        path.relative_to(tmp_path / "whole"): path.read_bytes() for path in (tmp_path / "whole").rglob("*.*")
    }
    noticed = 0
    for place in range(7, len(whole), len(whole) // 150):
        bundle.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        folder = tmp_path / str(place)
        try:
            unpack(bundle, folder)
        except InputError as error:
            assert str(bundle) in str(error)
            noticed += 1
        else:
            found = {
                path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()
            }
            assert {path: found[path] for path in expected if path in found and path.suffix} == expected
    assert noticed > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: with_index(files, format=3), "this version of bmm"),
        (lambda files: {"a.txt": b"a"}, "no bundle of"),
        (lambda files: files | {"more": b""}, "not those of its index"),
        (lambda files: dict(list(files.items())[1:]), "not those of its index"),
        (lambda files: {name: content + b" " for name, content in files.items()}, "larger than it may be"),
        (lambda files: with_index({**files, OUTSIDE[0]: b""}), "not those of its index"),
        *(
            (
                lambda files, name=name: with_index({INDEX: files[INDEX], name: b""}, files={name: EMPTY}),
                "no file of a run",
            )
            for name in OUTSIDE
        ),
        (
            lambda files: with_index(files, files={"a/b/c/result.json": EMPTY | {"size": 2**40}}),
            "more than a bundle may",
        ),
    ],
)  # fmt: skip
def test_a_foreign_or_hostile_one_is_refused(tmp_path, bundle, change, message):
    edit(bundle, change)
    with pytest.raises(InputError, match=message):
        unpack(bundle, tmp_path / "folder")
    assert not (tmp_path / "a").exists() and not Path(OUTSIDE[1]).exists()


@pytest.mark.long
def test_mutated_bundles_end_no_process_and_write_nothing_elsewhere(tmp_path):
    """A few of the 5,000 of fuzz_bundles.py."""
    outcomes, faults = fuzz(60, 1, tmp_path)
    assert not faults and outcomes.total() == 60
    assert len({kind for kind, _ in outcomes}) > 12


def test_a_damaged_arrow_file_with_the_right_hash_is_refused(tmp_path, bundle):
    """Offsets that lead nowhere, a file cut short and compressed zeros: by memory map they ended the process."""
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != INDEX}
    name = next(name for name in files if name.endswith("steps.arrow"))
    zeros = pa.table({"epoch": np.zeros(2**24, np.int64)})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, zeros.schema, options=options) as writer:
        writer.write_table(zeros)
    whole = files[name]
    start = whole.index(b"loss")
    torn = whole[:start] + b"\xff" * 16 + whole[start + 16 :]
    cut = whole[: len(whole) // 2] + b"ARROW1"
    others = {"compressed": sink.getvalue().to_pybytes(), "cannot be read": torn, "cannot": cut}
    for reason, content in others.items():
        pack([(one, text, 0) for one, text in (files | {name: content}).items()], None, bundle)
        with pytest.raises(InputError, match=r"steps\.arrow cannot be read.*Ask for it again") as found:
            unpack(bundle, tmp_path / reason.replace(" ", "-"))
        assert reason in str(found.value)


def test_runs_whose_folders_share_a_name_are_all_packed(tmp_path):
    for seed in range(3):
        write_run(tmp_path / "made", seed=seed).rename(
            (tmp_path / f"{seed}").mkdir() or tmp_path / f"{seed}" / "run"
        )
    groups = collect([tmp_path / f"{seed}" for seed in range(3)], "last").groups
    assert write_bundle(groups, tmp_path / "same.zip") == 3
    unpack(tmp_path / "same.zip", tmp_path / "again")
    (group,) = collect([tmp_path / "again"], "last").groups
    assert group.seeds == [0, 1, 2]


def test_a_truncated_or_other_file_ends_with_status_3(tmp_path, bundle):
    bundle.write_bytes(bundle.read_bytes()[:-30])
    assert "results.zip is damaged or no bundle" in bmm("results.zip", cwd=tmp_path, status=3).stderr
    (tmp_path / "notes.txt").write_text("notes")
    assert "notes.txt is damaged or no bundle" in bmm("notes.txt", cwd=tmp_path, status=3).stderr
