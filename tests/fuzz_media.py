"""Damages media files of ten formats and reads each as `bmm prepare` does: none may end the process, hang or take
more memory than MEMORY, and what is read must be what the unhurt file gives, as far as its format can tell.

The mutations: cut, flipped bytes, a block of zeros, a block of noise, and the header of one file before the rest of
another. Each follows from its number.

    python tests/fuzz_media.py            2,000 of them
    python tests/fuzz_media.py 200 7      200, from number 7 on
"""

import contextlib
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
from media_files import encode_sound, encode_video, sine
from PIL import Image

from balancemm_cli.data.reading.media import MediaError, read_audio, read_frames

SECONDS = 20  # that a file may take
START = 120  # seconds that a process may take to start and read the good files
MEMORY = 2 * 2**30  # bytes that the process may have beyond what it begins with
MUTATIONS = ("cut", "flip", "zeros", "noise", "splice")
Outcomes = Counter[tuple[str, str, str]]  # of a format, a mutation and what came of it

# ---- ten good files -------------------------------------------------------------------------------------------------


def write_good(folder: Path) -> list[Path]:
    """A file of each format: texture that moves, a noisy sine."""
    generator = np.random.default_rng(0)
    wide = np.kron(generator.integers(0, 255, (30, 70, 3), dtype=np.uint8), np.ones((6, 6, 1), np.uint8))
    pictures = [
        (wide[i : i + 120, 2 * i : 2 * i + 160] + generator.normal(0, 3, (120, 160, 1)))
        .clip(0, 255)
        .astype(np.uint8)
        for i in range(50)
    ]
    sound = (sine(2.0) + generator.normal(0, 0.05, 2 * 44100))[None]
    videos = {"mp4": "libx264", "webm": "libvpx", "avi": "mpeg4", "ts": "mpeg2video", "flv": "flv"}
    files = [encode_video(folder / f"a.{form}", codec, pictures) for form, codec in videos.items()]
    sounds = {"wav": "pcm_s16le", "mp3": "libmp3lame", "flac": "flac"}
    files += [encode_sound(folder / f"a.{form}", codec, sound) for form, codec in sounds.items()]
    for form in ("jpg", "png"):
        Image.fromarray(pictures[0]).save(folder / f"a.{form}")
        files.append(folder / f"a.{form}")
    return files


def mutate(number: int, files: list[Path], path: Path) -> tuple[Path, str]:
    """Write the mutation of that number to `path`; returns the file it is of, and its kind."""
    rng = random.Random(number)
    file = files[number % len(files)]
    kind = MUTATIONS[number // len(files) % len(MUTATIONS)]
    content = bytearray(file.read_bytes())
    size = rng.choice([16, 100, 512, 2000])
    start = rng.randrange(len(content))
    if kind == "cut":
        del content[start:]
    elif kind == "flip":
        for _ in range(rng.choice([1, 3, 20, 100])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "splice":
        head = rng.choice(files).read_bytes()[: rng.choice([8, 64, 512, 4096])]
        content[: len(head)] = head
    else:
        content[start : start + size] = bytes(size) if kind == "zeros" else rng.randbytes(size)
    path.write_bytes(content)
    return file, kind


# ---- reading --------------------------------------------------------------------------------------------------------


def read(path: Path, form: str) -> np.ndarray | str:
    """What `bmm prepare` reads of a file as one of the format, or why it does not."""
    try:
        if form in ("wav", "mp3", "flac"):
            return read_audio(path, 16000)
        return np.stack(read_frames(path, 64, 64, fps=5.0))
    except MediaError as error:
        return str(error)


def _child(numbers: list[int], files: list[Path], folder: Path, answers: Connection) -> None:
    """Read the mutations of some numbers; before each its number is sent, and after each what came of it."""
    av.logging.set_level(None)
    with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:  # what libraries print
        os.dup2(nowhere.fileno(), 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    unhurt = {file: read(file, file.suffix[1:]) for file in files}
    path = folder / "mutation"
    for number in numbers:
        file, kind = mutate(number, files, path)
        answers.send((number, file.suffix[1:], kind, None))
        try:
            found = read(path, file.suffix[1:])
            if isinstance(found, str):
                outcome = f"rejected: {found.partition(':')[0]}"
            else:
                outcome = "prepared, equal" if _equal(found, unhurt[file]) else "prepared, other"
        except BaseException as error:
            outcome = f"fault: {type(error).__name__}: {error}"
        answers.send((number, file.suffix[1:], kind, outcome))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    answers.send((-1, "", "", str(peak)))


def _equal(found: np.ndarray, unhurt: np.ndarray | str) -> bool:
    """Whether all that is stored is what the unhurt file gives, or the begin of it."""
    if isinstance(unhurt, str) or len(found) > len(unhurt) or found.shape[1:] != unhurt.shape[1:]:
        return False
    return np.array_equal(found, unhurt[: len(found)])


def fuzz(count: int, first: int, folder: Path) -> tuple[Outcomes, list[str], float, int]:
    """How often each mutation of each format had each outcome, a line for each fault, the longest time in seconds and
    the peak memory in MiB."""
    files = write_good(folder)
    outcomes: Outcomes = Counter()
    faults: list[str] = []
    slowest, peak = 0.0, 0
    left = list(range(first, first + count))
    # not "fork": a decoder's threads, left by a caller, do not survive it, and freeing that decoder waits for them
    context = multiprocessing.get_context("spawn")
    while left:
        ours, theirs = context.Pipe(False)
        child = context.Process(target=_child, args=(left, files, folder, theirs))
        child.start()
        theirs.close()
        last, began, limit = (left[0], "?", "?"), time.monotonic(), START
        ended = ""
        try:
            while True:
                if not ours.poll(limit + began - time.monotonic()):
                    child.kill()
                    ended = f"still read after {limit} s"
                    break
                number, form, kind, outcome = ours.recv()
                if number < 0:
                    peak = max(peak, int(outcome))
                    break
                if outcome is not None:
                    slowest = max(slowest, time.monotonic() - began)
                    outcomes[form, kind, outcome.partition(": ")[0]] += 1
                    if outcome.startswith("fault"):
                        faults.append(f"{number} ({form}, {kind}): {outcome}")
                    left = left[1:]
                last, began, limit = (number, form, kind), time.monotonic(), SECONDS
        except EOFError:
            ended = "the process ended"
        child.join()
        if ended:
            outcomes[last[1], last[2], "fault"] += 1
            faults.append(f"{last[0]} ({last[1]}, {last[2]}): {ended}, {child.exitcode}")
            left = left[1:]
    return outcomes, faults, slowest, peak


def main() -> None:
    """Fuzz, print a line a format and mutation, end with status 1 where anything is wrong."""
    count, first = (*map(int, sys.argv[1:]), *(2_000, 0)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        outcomes, faults, slowest, peak = fuzz(count, first, Path(folder))
    table: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (form, kind, outcome), number in sorted(outcomes.items()):
        table[form, kind].append(f"{number:,} {outcome}")
    for (form, kind), lines in table.items():
        print(f"{form:5} {kind:7}", "; ".join(lines))
    total = Counter[str]()
    for (_, _, outcome), number in outcomes.items():
        total[outcome] += number
    print(
        f"{count:,} files:", "; ".join(f"{number:,} {outcome}" for outcome, number in sorted(total.items()))
    )
    print(f"slowest {slowest:.2f} s, peak memory {peak:,} MiB, {len(faults)} faults")
    print("\n".join(faults[:20]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
