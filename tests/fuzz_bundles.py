"""Damages bundles and reads each as `bmm report` does: none may end the process, show a traceback or write elsewhere.

A third is damaged as a file (bytes flipped, cut, doubled), the rest inside, with hashes that fit: bytes and columns of
Arrow files, values and types of JSON and TOML, names, links, doubles, sizes. Each is read in a process of its own that
has MEMORY bytes more than it begins with, so that a crash or a bomb is seen. Every mutation follows from its number.

    python tests/fuzz_bundles.py            5,000 of them
    python tests/fuzz_bundles.py 200 7      200, from number 7 on
"""

import hashlib
import json
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import tomllib
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tomli_w
from run_folders import write_run, write_search

from balancemm_cli.errors import BmmError
from balancemm_cli.metrics.classification import evaluate_scores
from balancemm_cli.results import formats
from balancemm_cli.results.bundle import INDEX, unpack_all, write_bundle
from balancemm_cli.results.collection import collect
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.figures import draw_all, draw_figure
from balancemm_cli.results.report import train_command
from balancemm_cli.runs.evaluation import Point, RunEvaluation, keep
from balancemm_cli.runs.folder import write_table
from balancemm_cli.runs.schema import Metrics

MEMORY = 2 * 2**30
DRAWN_EVERY = 500  # figures take seconds
Files = dict[str, bytes]
LINK = 0o120777 << 16  # the attributes by which zip tells a symbolic link


# ---- the bundle ---------------------------------------------------------------------------------------------


def write_sound_bundle(folder: Path) -> Path:
    """A bundle of two runs with every file that a bundle may have."""
    for method in ("baseline", "opm"):
        run = write_run(folder / "runs", method, 0, epochs=3, samples=(40, 40), accuracy=0.9)
        labels = np.arange(40, dtype=np.int32) % 3
        scores = np.random.default_rng(0).random((40, 3)).astype(np.float32) / 2
        scores[np.arange(40), (labels + (np.arange(40) >= 36)) % 3] = 0.9
        ids = [f"clip-{number}" for number in range(40)]
        columns = {"selection": ["last"] * 40, "id": ids, "label": labels}
        vectors = pa.array(list(scores), pa.list_(pa.float32()))
        table = pa.table({**columns, "scores": vectors})
        write_table(run / "predictions.arrow", table.replace_schema_metadata({"classes": '["a", "b", "c"]'}))
        result = json.loads((run / "result.json").read_text())
        result["selections"]["last"] |= {**evaluate_scores(scores, labels), "accuracy": 0.9}
        (run / "result.json").write_text(json.dumps(result))
        classes = pa.DictionaryArray.from_arrays(labels, ["a", "b", "c"])
        features = pa.table({"id": ids, "label": classes, "audio": vectors, "visual": vectors})
        metrics = {"accuracy": 0.5, "map": 0.5, "macro_f1": 0.5}
        points = [Point(amount=amount, draws=1, **metrics) for amount in (0.0, 0.5)]
        keep(
            run,
            RunEvaluation(
                checkpoint="c", epochs=3, test=Metrics(**metrics), missing={"audio": points},
                features={"audio": 3, "visual": 3},
            ),
            features,
        )  # fmt: skip
    write_search(folder / "runs" / "synthetic" / "concat", run)
    write_bundle(collect([folder / "runs"], "last").groups, folder / "sound.zip", "Ada")
    return folder / "sound.zip"


def contents(bundle: Path) -> Files:
    """The files of a bundle but for its index."""
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != INDEX}


def pack(files: list[tuple[str, bytes, int]], index: object | None, path: Path) -> None:
    """Write (name, content, attributes) and an index, one that fits where none is given."""
    if index is None:
        members = {
            name: {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text, _ in files
        }
        index = {"format": 2, "owner": "Ada", "files": members}
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, text, attributes in files:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = attributes, zipfile.ZIP_DEFLATED
            archive.writestr(info, text)
        archive.writestr(INDEX, index if isinstance(index, bytes) else json.dumps(index))


# ---- mutations: each takes the sound bundle's bytes and files and writes another ---------------------------------


def of_the_file(rng: random.Random, sound: Path, path: Path) -> str:
    """Flip, cut, double or overwrite bytes of the zip file."""
    content = bytearray(sound.read_bytes())
    kind = rng.choice(["flip", "flip", "flip", "cut", "double", "extreme", "tail"])
    start = rng.randrange(len(content))
    if kind == "flip":
        _flip(rng, content)
    elif kind == "cut":
        del content[start : start + rng.choice([1, 30, len(content)])]
    elif kind == "double":
        content[start:start] = content[start : start + rng.randrange(1, 500)]
    elif kind == "extreme":
        _overwrite(rng, content, start)
    else:  # zip's own list of its files, and its end
        _overwrite(rng, content, len(content) - rng.randrange(1, 1600))
    path.write_bytes(content)
    return f"file {kind}"


def of_arrow_bytes(rng: random.Random, files: Files) -> str:
    """Damage the bytes of an Arrow file."""
    name = rng.choice([name for name in files if name.endswith(".arrow")])
    content = bytearray(files[name])
    kind = rng.choice(["flip", "extreme", "extreme", "cut", "footer", "other"])
    if kind == "flip":
        _flip(rng, content)
    elif kind == "extreme":
        for _ in range(rng.choice([1, 1, 2, 5])):
            _overwrite(rng, content, rng.randrange(len(content) // 4) * 4)
    elif kind == "cut":
        del content[rng.randrange(len(content)) :]
        content += rng.choice([b"", b"ARROW1"])
    elif kind == "footer":
        _overwrite(rng, content, len(content) - rng.randrange(4, min(600, len(content))))
    else:
        content = bytearray(files[rng.choice([other for other in files if other.endswith(".arrow")])])
    files[name] = bytes(content)
    return f"arrow {kind}"


def of_arrow_content(rng: random.Random, files: Files) -> str:
    """Put a sound Arrow file in place of another, with columns or values that no run has."""
    name = rng.choice([name for name in files if name.endswith(".arrow")])
    table = pa.ipc.open_file(files[name]).read_all()
    kind = rng.choice(["column", "value", "metadata", "rows", "bomb", "missing"])
    options = None
    if kind == "column":
        column = rng.choice([*table.column_names, "more"])
        table = _with(table, column, rng.choice(_columns(table.num_rows)))
    elif kind == "value":
        column = rng.choice(table.column_names)
        values = table[column].to_pylist()
        values[rng.randrange(len(values))] = rng.choice(
            [None, -1, 2**31 - 1, "x", [], [1.0], [None] * 3, float("nan")]
        )
        try:
            table = _with(table, column, pa.array(values, table.schema.field(column).type))
        except (pa.ArrowException, TypeError, OverflowError):
            table = _with(table, column, pa.nulls(len(values), table.schema.field(column).type))
    elif kind == "metadata":
        classes = rng.choice(
            ["[" * 100_000, "{}", "[1, 2, 3]", '["a"]', "nonsense", '"abc"', "[[], {}, 1]", ""]
        )
        table = table.replace_schema_metadata({"classes": classes})
    elif kind == "rows":
        table = rng.choice([table.slice(0, 0), table.slice(3), pa.concat_tables([table] * 3)])
    elif kind == "bomb":  # half a gigabyte of zeros in a few kilobytes
        table = pa.table({column: pa.nulls(1, pa.int8()) for column in table.column_names})
        table = _with(table, "label", pa.array(np.zeros(1, np.int8)))
        table = pa.table({"epoch": np.zeros(64 * 2**20, np.int64)})
        options = pa.ipc.IpcWriteOptions(compression=rng.choice(["zstd", "lz4"]))
    else:
        table = table.drop_columns([rng.choice(table.column_names)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    files[name] = sink.getvalue().to_pybytes()
    return f"columns {kind}"


def _with(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    columns = dict(zip(table.column_names, table.columns, strict=True)) | {column: values}
    return pa.table(columns).replace_schema_metadata(table.schema.metadata)


def _columns(rows: int) -> list[pa.Array]:
    return [
        pa.nulls(rows),
        pa.array([[[0.0]]] * rows),
        pa.array([{"a": 1}] * rows),
        pa.array([b"\xff"] * rows),
        pa.array([2**63 - 1] * rows),
        pa.array(["\x1b[2J"] * rows),
        pa.array([[1.0] * (number % 3) for number in range(rows)], pa.list_(pa.float32())),
        pa.DictionaryArray.from_arrays(pa.array([5] * rows, pa.int32()), ["a"], safe=False),
        pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), pa.array([1.0])),
        pa.array([[]] * rows, pa.list_(pa.float32(), 0)),
    ]


def of_values(rng: random.Random, files: Files) -> str:
    """Put a value of another type or size at some place of a JSON or TOML file, or take one away."""
    name = rng.choice([name for name in files if not name.endswith(".arrow")])
    content = files[name].decode()
    toml, lines = name.endswith(".toml"), name.endswith(".jsonl")
    tree = tomllib.loads(content) if toml else json.loads(content.splitlines()[-1] if lines else content)
    place = tree
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key]) or rng.random() < 0.2:
            break
        place = place[key]
    if rng.random() < 0.15:
        del place[key]
    else:
        place[key] = rng.choice(_values(toml))
    if toml:
        files[name] = tomli_w.dumps(tree).encode()
    else:
        files[name] = (content if lines else "").encode() + json.dumps(tree).encode("utf-8", "surrogatepass")
    return "values"


def _values(toml: bool) -> list[Any]:
    found = [
        True,
        -1,
        0,
        2**53,
        10**30,
        1e308,
        -1e-308,
        float("nan"),
        float("inf"),
        "",
        "x" * 5000,
        "../../../up",
    ]
    found += [
        "/etc/passwd",
        "\x1b[2J",
        "a\nb",
        "$\\frac",
        "|<b>",
        "𝕏" * 50,
        [],
        {},
        [1, "a", [2]],
        {"a": {"b": 1}},
        0.5,
    ]
    if not toml:
        found += [None, 10**400, "\ud800", _deep(500), {"": 0.5}, {"../x": 0.5}, ["x"] * 1000]
    return found


def _deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def of_texts(rng: random.Random, files: Files) -> str:
    """Damage the text of a JSON or TOML file: bytes, depth, size."""
    name = rng.choice([name for name in files if not name.endswith(".arrow")])
    content = bytearray(files[name])
    kind = rng.choice(["flip", "deep", "long", "number", "empty", "bytes", "keys"])
    if kind == "flip":
        _flip(rng, content)
    elif kind == "deep":
        levels = rng.choice([1_000, 200_000])
        content = bytearray(b"a = " * name.endswith(".toml") + rng.choice([b"[", b'{"a":']) * levels)
    elif kind == "long":
        content += b" " * rng.choice([2 * 2**20, 70 * 2**20])
    elif kind == "number":
        content = bytearray(b"seed = " * name.endswith(".toml") + b"1" * 200_000)
    elif kind == "keys":
        content = bytearray(b".".join([b"a"] * 20_000) + b" = 1\n")
    else:
        content = bytearray(b"" if kind == "empty" else rng.randbytes(300))
    files[name] = bytes(content)
    return f"text {kind}"


def of_names(rng: random.Random, sound: Files, path: Path) -> str:
    """Names that lead elsewhere, links, doubles, and an index that says something else."""
    files = [(name, content, 0) for name, content in sound.items()]
    number = rng.randrange(len(files))
    name, content, _ = files[number]
    run, _, base = name.rpartition("/")
    kind = rng.choice(["name", "name", "link", "double", "size", "index", "many"])
    index: object = None
    if kind == "name":
        other = [
            f"../../../{base}",
            f"{run}/../{base}",
            f"{path.parent}/outside/a/{base}",
            f"//a/b/{base}",
            f"a/b/{base}",
        ]
        other += [
            f"a/../../{base}",
            f"a\\..\\b/c/d/{base}",
            f"a/b/{'c' * 300}/{base}",
            f"a/b/\x1b[2J/{base}",
            f"a/b/ /{base}",
        ]
        other += [
            f"a/b//{base}",
            f"./a/b/{base}",
            f"{run}/{base}/",
            f"a/b/{base}/{base}",
            f"a/b/c/{base.upper()}",
            "",
            "C:/a/b/x",
        ]
        other += [
            f"a/b/c/{rng.choice(['.lock', 'checkpoints', 'x.py'])}",
            f"a/b/\u202e/{base}",
            f"a/b/c\x00d/{base}",
        ]
        files[number] = (rng.choice(other), content, 0)
    elif kind == "link":
        files[number] = (name, rng.choice([b"/etc/passwd", b"../../../..", name.encode()]), LINK)
    elif kind == "double":
        files.insert(rng.randrange(len(files)), (name, rng.choice([content, b""]), 0))
    elif kind == "size":
        members = {
            one: {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()} for one, text, _ in files
        }
        members[name]["size"] = rng.choice([0, 1, 2**20, 2**33, 2**40, 2**62, 2**64, 10**30, -1])
        index = {"format": 1, "files": members}
    elif kind == "index":
        index = rng.choice(
            [
                b"",
                b"[" * 10**6,
                b"{}",
                b"null",
                b'{"format": 1, "files": []}',
                b'{"format": 1}',
                rng.randbytes(99),
            ]
        )
    else:
        files += [(f"a/b/{extra}/result.json", b"", 0) for extra in range(2_000)]
    pack(files, index, path)
    return f"names {kind}"


def _flip(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 3, 20])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, content: bytearray, start: int) -> None:
    """Put a number that is often believed there: of no size, of an end, of more than there is."""
    small, large = (-1, 0, 2**20, 2**31 - 1), (-8, 1, 2**40, 2**62)
    form, value = rng.choice([*(("<i", one) for one in small), *(("<q", one) for one in large)])
    content[start : start + struct.calcsize(form)] = struct.pack(form, value)


INSIDE: list[Callable[[random.Random, Files], str]] = [
    of_arrow_bytes, of_arrow_bytes, of_arrow_content, of_values, of_values, of_texts,
]  # fmt: skip


def mutate(number: int, sound: Path, path: Path) -> str:
    """Write the mutation of that number to `path`; returns its kind."""
    rng = random.Random(number)
    if number % 3 == 0:
        return of_the_file(rng, sound, path)
    if number % 9 == 1:
        return of_names(rng, contents(sound), path)
    files = contents(sound)
    kind = rng.choice(INSIDE)(rng, files)
    pack([(name, content, 0) for name, content in files.items()], None, path)
    return kind


# ---- reading ------------------------------------------------------------------------------------------------


def read(number: int, path: Path, folder: Path) -> str:
    """Read a bundle as `bmm report` does, in every way; "refused" or "read", or the traceback of a fault."""
    try:
        collection = collect([], "last", bundles=unpack_all([path], folder / "unpacked"))
        for beside in (False, True):
            shown = Contents(collection.groups, "last", side_by_side=beside)
            texts = [formats.to_markdown(table) for table in shown.tables]
            texts += [
                formats.to_json(shown.records),
                formats.to_csv(shown.records),
                formats.to_html(shown.tables),
            ]
            texts += [formats.to_latex(shown.tables), *map(train_command, collection.groups)]
            "".join(texts).encode()
        if number % DRAWN_EVERY == 0:
            draw_all(collection.groups, "last", folder / "figures")
            for name in ("4", "5", "6", "8", "features"):
                draw_figure(name, collection.groups, folder / "figures")
    except BmmError as error:
        assert len(str(error)) < 3_000 and "\n" not in str(error), error
        str(error).encode()
        return "refused"
    except OSError as error:  # the program makes a sentence of it, too
        return f"refused by the system: {error.strerror}"
    except BaseException:
        return traceback.format_exc()
    return "read"


def _child(numbers: list[int], sound: Path, folder: Path, results: Connection) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    warnings.simplefilter("error")
    for number in numbers:
        place = folder / str(number)
        place.mkdir()
        kind = mutate(number, sound, place / "bundle.zip")
        results.send((number, kind, None))  # of the one that is begun, should it end this process
        before = _everything(folder, place / "unpacked", place / "figures")
        found = read(number, place / "bundle.zip", place)
        if _everything(folder, place / "unpacked", place / "figures") != before:
            found = "wrote outside"
        results.send((number, kind, found))
        _remove(place)
    results.close()


def _everything(folder: Path, *but: Path) -> set[str]:
    """Every path below a folder, but for those below others."""
    return {
        os.path.join(place, name)
        for place, inner, files in os.walk(folder)
        for name in (*inner, *files)
        if not any(Path(place, name).is_relative_to(one) for one in but)
    }


def _remove(folder: Path) -> None:
    for place, inner, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(place, name))
        for name in inner:
            os.rmdir(os.path.join(place, name))
    folder.rmdir()


def fuzz(count: int, first: int, folder: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """How often each kind of mutation had each outcome, and a text for each that should not be."""
    sound = write_sound_bundle(folder)
    (folder / "work").mkdir()
    outcomes: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    left = list(range(first, first + count))
    context = multiprocessing.get_context("spawn")  # threads of the caller's libraries do not survive "fork"
    while left:
        ours, theirs = context.Pipe(False)
        child = context.Process(target=_child, args=(left, sound, folder / "work", theirs))
        child.start()
        theirs.close()
        last = (left[0], "?")
        try:
            while True:
                number, kind, found = ours.recv()
                last = (number, kind)
                if found is None:
                    continue
                outcomes[kind, found if len(found) < 60 else "fault"] += 1
                if not found.startswith(("read", "refused")):
                    faults.append(f"{number} ({kind}): {found}")
                left = left[1:]
        except EOFError:
            child.join()
        if left:  # the child ended at the first of them
            outcomes[last[1], "crash"] += 1
            faults.append(f"{left[0]} ({last[1]}): the process ended with {child.exitcode}")
            left = left[1:]
            for rest in (folder / "work").iterdir():
                _remove(rest)
    return outcomes, faults


def main() -> None:
    """Fuzz, print one line per kind, end with status 1 where anything is wrong."""
    count, first = (*map(int, sys.argv[1:]), *(5_000, 0)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        outcomes, faults = fuzz(count, first, Path(folder))
    for kind in sorted({kind for kind, _ in outcomes}):
        print(
            f"{kind:18}",
            ", ".join(f"{n:,} {found}" for (one, found), n in sorted(outcomes.items()) if one == kind),
        )
    print(f"{count:,} bundles, {len(faults)} faults")
    print("\n".join(faults[:20]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
