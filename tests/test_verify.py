"""`--verify` on small git repositories like CREMA-D's: pointers in the commit, media in the working tree."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from media_files import MEDIA, contents, needs_media

from balancemm_cli.cli import prepare as prepare_command
from balancemm_cli.data.datasets import DATASETS, crema_d
from balancemm_cli.data.datasets.crema_d import CremaD
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample
from balancemm_cli.data.preparing import verify as verify_module
from balancemm_cli.data.preparing.verify import verify
from balancemm_cli.errors import InputError, UsageError

STEMS = [f"1001_DFA_{label}_XX" for label in crema_d.CLASSES]
NAMES = [f"{folder}/{stem}{suffix}" for stem in STEMS for folder, suffix in crema_d.FOLDERS.values()]
FIRST = NAMES[0]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is absent")


def git(folder, *words):
    """Git as a user runs it, without this machine's settings."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


def media(name):
    return hashlib.sha256(name.encode()).digest() * (100 + len(name) * NAMES.index(name))


def pointer(content):
    sha256 = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()


def write(folder, contents):
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def commit(folder, contents, *init):
    """A repository with these files in its only commit."""
    folder.mkdir()
    git(folder, "init", "-q", *init)
    write(folder, contents)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "media")


@pytest.fixture
def clone(tmp_path):
    """A clone whose media were fetched."""
    commit(tmp_path / "clone", {name: pointer(media(name)) for name in NAMES} | {"README.md": b"media"})
    write(tmp_path / "clone", {name: media(name) for name in NAMES})
    return tmp_path / "clone"


def check(source, workers=1, on_progress=None):
    samples = [
        Sample(
            stem, "train", stem.split("_")[2], {m: Clip(source, f"{f}/{stem}{s}") for m, (f, s) in FOLDERS}
        )
        for stem in STEMS
    ]
    plan = Plan("crema-d", samples, crema_d.CLASSES, crema_d.MODALITIES)
    return verify(CremaD(), source, plan, workers, on_progress)


FOLDERS = crema_d.FOLDERS.items()


def test_media_as_their_pointers_say(clone, monkeypatch):
    monkeypatch.setattr(verify_module, "BATCH", 5)
    ticks = []
    said = check(clone, workers=2, on_progress=lambda *count: ticks.append(count))
    size = sum(len(media(name)) for name in NAMES)
    head = git(clone, "rev-parse", "HEAD")[:12]
    assert said.startswith(
        f"Verified: 12 files ({size:,} bytes) have the size and hash that commit {head} of"
    )
    assert ticks[-1] == ("verify", 12, 12)


def test_a_changed_byte(clone):
    content = bytearray(media(FIRST))
    content[7] ^= 1
    (clone / FIRST).write_bytes(content)
    with pytest.raises(InputError, match=rf"1 of the 12 files .*first: {FIRST}, its hash is .*git lfs pull"):
        check(clone)


def test_a_file_cut_short_is_found_by_its_size(clone):
    (clone / NAMES[3]).write_bytes(media(NAMES[3])[:-1])
    write(clone, {FIRST: bytes(len(media(FIRST)))})  # a hash is not compared before the sizes are right
    size = len(media(NAMES[3]))
    with pytest.raises(InputError, match=rf"1 of .*{NAMES[3]}, it has {size - 1:,} bytes, not {size:,}"):
        check(clone)


def test_pointers_that_were_not_fetched(clone):
    write(clone, {name: pointer(media(name)) for name in NAMES[:4]})
    with pytest.raises(InputError, match=rf"4 of the 12 files .*{FIRST}, it has 129 bytes"):
        check(clone)


def test_missing_files_are_counted(clone):
    (clone / FIRST).unlink()
    assert check(clone).endswith("; 1 are missing.") and "Verified: 11 files" in check(clone)


def test_files_that_are_not_in_the_clone(clone):
    git(clone, "rm", "-q", "--cached", FIRST)
    git(clone, "commit", "-qm", "without one")
    with pytest.raises(InputError, match=rf"1 of the 12 files .* are not in commit .*first: {FIRST}"):
        check(clone)


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_media_that_git_holds_as_they_are(tmp_path, kind):
    source = tmp_path / "clone"
    commit(source, {name: media(name) for name in NAMES}, f"--object-format={kind}")
    assert "Verified: 12 files" in check(source)
    content = media(FIRST)
    (source / FIRST).write_bytes(content[1:] + content[:1])
    with pytest.raises(InputError, match=r"1 of the 12 files .*its hash is"):
        check(source)


def test_a_bare_clone_beside_the_media(clone, tmp_path):
    """What the error for an absent clone advises."""
    source = tmp_path / "copy"
    write(source, {name: media(name) for name in NAMES})
    with pytest.raises(InputError, match=rf"git clone --bare --depth 1 https.*CREMA-D\.git {source}/\.git"):
        check(source)
    git(tmp_path, "clone", "-q", "--bare", "--depth", "1", f"file://{clone}", str(source / ".git"))
    assert "Verified: 12 files" in check(source)


def test_a_repository_around_the_folder_is_not_asked(clone):
    source = clone / "data"
    write(source, {name: media(name) for name in NAMES})
    with pytest.raises(InputError, match="data is none"):
        check(source)
    (source / ".git").mkdir()
    with pytest.raises(InputError, match=r"git cannot read the clone .*not a git repository"):
        check(source)


def test_an_empty_repository(tmp_path):
    source = tmp_path / "clone"
    write(source, {name: media(name) for name in NAMES})
    git(source, "init", "-q")
    with pytest.raises(InputError, match="git cannot read the clone"):
        check(source)


def test_a_damaged_repository(clone):
    blob = git(clone, "rev-parse", f"HEAD:{FIRST}")
    (clone / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(InputError, match=rf"is incomplete: it lacks the object {blob}"):
        check(clone)


def test_without_git(clone, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"git, which is not here\. Install git"):
        check(clone)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_clone_of_another_user(clone, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    os.chown(clone, 12345, 12345)
    os.chown(clone / ".git", 12345, 12345)
    with pytest.raises(InputError, match=rf"another user.*safe\.directory {clone}"):
        check(clone)


def test_settings_of_a_hostile_clone_run_nothing(clone, tmp_path):
    trace = tmp_path / "it ran"
    script = tmp_path / "run.sh"
    script.write_text(f"#!/bin/sh\ntouch '{trace}'\nexit 1\n")
    script.chmod(0o755)
    (clone / ".gitattributes").write_text("*.wav filter=evil diff=evil\n")
    for key in (
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "pager.ls-tree",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "alias.ls-tree",
    ):
        git(clone, "config", key, str(script))
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        shutil.copy(script, clone / ".git" / "hooks" / hook)
    assert "Verified: 12 files" in check(clone)
    assert not trace.exists()
    git(clone, "status")  # git on its own does run it
    assert trace.exists()


def test_missing_objects_are_not_fetched(clone, tmp_path):
    """A clone may name a program that is to give its missing objects."""
    trace = tmp_path / "it ran"
    script = tmp_path / "run.sh"
    script.write_text(f"#!/bin/sh\ntouch '{trace}'\nexec git-upload-pack \"$@\"\n")
    script.chmod(0o755)
    git(clone, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{clone}", "partial")
    source = tmp_path / "partial"
    write(source, {name: media(name) for name in NAMES})
    git(source, "config", "remote.origin.uploadpack", str(script))
    with pytest.raises(InputError, match=r"git cannot read the clone|is incomplete"):
        check(source)
    assert not trace.exists()
    git(source, "cat-file", "-p", f"HEAD:{FIRST}")  # git on its own does run it
    assert trace.exists()


def test_variables_of_git_do_not_lead_elsewhere(clone, tmp_path, monkeypatch):
    commit(tmp_path / "other", {"README.md": b"nothing"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert "Verified: 12 files" in check(clone)


@pytest.mark.parametrize("name", ["manifest", "synthetic", "synthetic-modalities"])
def test_data_without_an_official_source(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"'{name}' has no official source"):
        prepare_command(name, verify=True)
    assert not list(tmp_path.iterdir())


@needs_media
def test_the_command_verifies_before_it_prepares(tmp_path, monkeypatch, capsys):
    """The bytes that it writes are those without --verify."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "data" / "raw" / "crema-d"
    found = {name: (MEDIA / "derived" / f"1001_IEO_NEU_XX{Path(name).suffix}").read_bytes() for name in NAMES}
    source.parent.mkdir(parents=True)
    commit(source, {name: pointer(content) for name, content in found.items()})
    write(source, found)
    (tmp_path / "lists").mkdir()
    for part, stems in (("train", STEMS), ("test", [])):
        text = "".join(f"{stem},{stem.split('_')[2]}\n" for stem in stems)
        (tmp_path / "lists" / f"{part}.csv").write_text(text)
    options = {"splits": tmp_path / "lists", "allow_missing": True, "workers": 1}
    content = bytearray(found[FIRST])
    content[-1] ^= 1
    (source / FIRST).write_bytes(content)
    with pytest.raises(InputError, match=r"1 of the 12 files .*its hash is"):
        prepare_command("crema-d", verify=True, **options)
    assert not (tmp_path / "data" / "prepared").exists()
    write(source, found)
    prepare_command("crema-d", verify=True, **options)
    assert "Verified: 12 files" in " ".join(capsys.readouterr().err.split())
    verified = contents(tmp_path / "data" / "prepared" / "crema-d")
    shutil.rmtree(tmp_path / "data" / "prepared")
    prepare_command("crema-d", **options)
    assert contents(tmp_path / "data" / "prepared" / "crema-d") == verified
    with pytest.raises(UsageError, match="--join and --verify"):
        prepare_command("crema-d", verify=True, join=True)


def test_a_source_without_hashes_is_said():
    said = verify(DATASETS["vggsound"], Path(), Plan("vggsound", [], [], {}), 1)
    assert said.startswith("Verified: the split alone") and "publishes no hashes" in said
