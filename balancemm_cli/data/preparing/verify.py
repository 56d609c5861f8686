"""Whether the user's files are those that the official source published, by size and SHA-256.

What was published says the data set itself (`Dataset.official_files`).
"""

import hashlib
import os
from pathlib import Path

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.data.datasets.published import Published
from balancemm_cli.data.preparing.work import Progress
from balancemm_cli.data.preparing.workers import run, tick
from balancemm_cli.errors import InputError, UsageError

BATCH = 32  # files that a worker process hashes at a time


def need_official_source(dataset: Dataset) -> None:
    """UsageError for a data set that nobody published."""
    if not dataset.PUBLISHED:
        raise UsageError(
            f"Data set '{dataset.name}' has no official source to compare with; leave --verify away."
        )


def verify(
    dataset: Dataset,
    source: Path,
    plan: Plan,
    workers: int,
    on_progress: Progress | None = None,
) -> str:
    """Compare the files of a plan with what their source published, and say in a sentence what was compared.

    Files that are missing are left to `prepare`. `on_progress(stage, done, total)` counts files. InputError for
    the first file that differs, with the number of those that do.
    """
    published = dataset.official_files(source, plan)
    if published is None:
        return f"Verified: the split alone, as always; the source of '{dataset.name}' publishes no hashes of its files."
    clips = {clip.name: clip for sample in plan.samples for clip in sample.clips.values()}
    paths = {key: clip.path for key, clip in clips.items() if clip.path.is_file()}
    _refuse_unknown(source, paths, published)
    sizes = {key: path.stat().st_size for key, path in paths.items()}
    facts = {key: published.files[key] for key in paths}
    wrong = {
        key: f"it has {sizes[key]:,} bytes, not {facts[key].size:,}"
        for key in paths
        if facts[key].size not in (None, sizes[key])
    }
    _refuse(source, wrong, len(paths), published)
    tasks = [(paths[key], facts[key].blob, len(facts[key].hash)) for key in paths]
    batches = [tasks[first : first + BATCH] for first in range(0, len(tasks), BATCH)]
    report = (lambda done: on_progress("verify", done, len(paths))) if on_progress else None
    found = [value for batch in run(_hashes, batches, workers, report) for value in batch] if batches else []
    wrong = {
        key: f"its hash is {value[:12]}…, not {facts[key].hash[:12]}…"
        for key, value in zip(paths, found, strict=True)
        if value != facts[key].hash
    }
    _refuse(source, wrong, len(paths), published)
    absent = f"; {len(clips) - len(paths):,} are missing" if len(paths) < len(clips) else ""
    return (
        f"Verified: {len(paths):,} files ({sum(sizes.values()):,} bytes) have the size and hash that "
        f"{published.who} names{absent}."
    )


def _refuse_unknown(source: Path, paths: dict[str, Path], published: Published) -> None:
    if unknown := [key for key in paths if key not in published.files]:
        raise InputError(
            f"{len(unknown):,} of the {len(paths):,} files that are used in {source} are not in {published.who} "
            f"(first: {unknown[0]}). Use the files of that source, or leave --verify away."
        )


def _refuse(source: Path, wrong: dict[str, str], count: int, published: Published) -> None:
    if wrong:
        first, how = next(iter(wrong.items()))
        raise InputError(
            f"{len(wrong):,} of the {count:,} files that are used in {source} are not those that {published.who} "
            f"names (first: {first}, {how}). {published.remedy}"
        )


def _hashes(tasks: list[tuple[Path, bool, int]]) -> list[str]:
    """The hash of each file, of git's kind where it is asked for, SHA-1 or SHA-256 by its length. Runs in a
    worker."""
    found = []
    for path, blob, length in tasks:
        digest = hashlib.sha1(usedforsecurity=False) if length == 40 else hashlib.sha256()
        with path.open("rb") as file:
            if blob:
                digest.update(f"blob {os.fstat(file.fileno()).st_size}\0".encode())
            while part := file.read(2**20):
                digest.update(part)
        found.append(digest.hexdigest())
        tick()
    return found
