"""What a source published of its files, by size and hash, and how that is read from a git clone.

Those of CREMA-D stand in its git repository: git LFS keeps a media file's size and SHA-256 in a small text, the
pointer. Nothing of a repository is run: no hooks, no filters, no pager, no fetching.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from balancemm_cli.errors import InputError

POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)
POINTER_BYTES = 1024  # a pointer is smaller, by its specification


@dataclass(frozen=True)
class Facts:
    """What is published of a file: its size in bytes, None where unknown, and a hash in hexadecimal. With `blob`
    the hash is git's own, which a file has that lies in a repository as it is."""

    size: int | None
    hash: str
    blob: bool = False


@dataclass(frozen=True)
class Published:
    """What a source says of its files: who says it, the facts of each file by its path below the source, and how
    to get files that differ anew."""

    who: str
    files: dict[str, Facts]
    remedy: str


def clone_files(source: Path, folders: list[str], how_to_get: str) -> Published:
    """The facts of the files below `folders` by the last commit of the git clone in `source`: of a git-LFS
    pointer what it says, of another file git's hash. InputError where there is no clone, or git is not here."""
    if not (source / ".git").exists():
        raise InputError(
            f"--verify reads the sizes and SHA-256 of the media from the git clone that they came with, and {source} "
            f"is none: {how_to_get}"
        )
    commit = _git(source, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    blobs = dict(_blobs(source, commit, folders))
    small = sorted({blob for blob, size in blobs.values() if size < POINTER_BYTES})
    pointers = dict(_pointers(source, small))
    files = {name: pointers.get(blob) or Facts(size, blob, blob=True) for name, (blob, size) in blobs.items()}
    return Published(
        f"commit {commit[:12]} of the clone {source}",
        files,
        f"Delete the files that differ and run `git lfs pull` in {source}.",
    )


def _blobs(source: Path, commit: str, folders: list[str]) -> Iterator[tuple[str, tuple[str, int]]]:
    """The path of each regular file below the folders in a commit, with its git hash and size."""
    listed = _git(source, "ls-tree", "-r", "-l", "-z", commit, "--", *folders)
    for entry in listed.split(b"\0")[:-1]:
        facts, _, name = entry.partition(b"\t")
        mode, _, blob, size = facts.decode().split()
        if mode in ("100644", "100755"):
            if not size.isdecimal():
                raise _incomplete(source, blob)
            yield os.fsdecode(name), (blob, int(size))


def _pointers(source: Path, blobs: list[str]) -> Iterator[tuple[str, Facts]]:
    """The facts that git-LFS pointers state, by git's hash of the pointer; other blobs are left out."""
    data = _git(source, "cat-file", "--batch", given="".join(blob + "\n" for blob in blobs).encode())
    position = 0
    for blob in blobs:
        end = data.index(b"\n", position)
        words = data[position:end].decode().split()
        if len(words) != 3:
            raise InputError(
                f"The git clone {source} is incomplete: it lacks the object {blob}. Clone it anew."
            )
        position = end + 1 + int(words[2]) + 1
        if match := POINTER.fullmatch(data, end + 1, position - 1):
            yield blob, Facts(int(match[2]), match[1].decode())


def _incomplete(source: Path, blob: str) -> InputError:
    return InputError(f"The git clone {source} is incomplete: it lacks the object {blob}. Clone it anew.")


def _git(source: Path, *words: str, given: bytes = b"") -> bytes:
    """The output of a git command that only reads. A clone can come from anybody, so git gets no setting of this
    process and takes no code from the clone's: no transport (missing objects are not fetched), no file monitor."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {
        "GIT_CEILING_DIRECTORIES": str(source.resolve().parent),  # not the repository that the folder lies in
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    command = ["git", "-C", str(source), "-c", "core.fsmonitor=false", "--no-pager", "--no-optional-locks"]
    try:
        done = subprocess.run([*command, *words], input=given, capture_output=True, env=environment)
    except FileNotFoundError:
        raise InputError("--verify reads the clone with git, which is not here. Install git.") from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()
    if "dubious ownership" in said:
        raise InputError(
            f"The clone {source} belongs to another user, so git does not read it. If you trust it, run `git config "
            f"--global --add safe.directory {source.resolve()}`."
        )
    reason = said.splitlines()[0] if said else f"exit status {done.returncode}"
    raise InputError(f"git cannot read the clone {source}: {reason}. Clone it anew.")
