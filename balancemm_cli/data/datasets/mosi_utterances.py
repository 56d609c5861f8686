"""CMU-MOSI as one vector of each modality a spoken sentence, by the authors of bc-LSTM (Poria et al., ACL 2017).

`<modality>/<modality>_train0.csv` and `…_test0.csv` for text, audio and video have no header; a row is a sentence, the
last column 1 for a positive sentence and 0 for a negative one. The rows of the three modalities belong together.
Which sentence a row is stands in none of them, but follows from transcripts.csv (name, words, number of the video,
label): the videos with the first numbers are the training part, and in a part the positive sentences come first, each
in the order of the file. The numbers of the rows in text_train.csv and text_test.csv of the repository say the same.

This is another split than the standard folds of `cmu-mosi`. A validation part is cut out of the training part by a
fixed rule, by video.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import Official, check_official, find_file, no_lists, read_text
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, features, held
from balancemm_cli.data.datasets.published import Facts, Published
from balancemm_cli.data.datasets.tables import Table, read_table
from balancemm_cli.data.datasets.tree import need_folder
from balancemm_cli.data.splitting import RULE_SPLIT, split_by_rule
from balancemm_cli.errors import InputError

CLASSES = ["negative", "positive"]
WIDTHS = {"text": 100, "audio": 73, "visual": 100}
FOLDERS = {"text": "text", "audio": "audio", "visual": "video"}  # of each modality in the source
OF_TRAINING = {"train": 0.8, "val": 0.2}
PLACES = ("", "data", "bc-LSTM/data")  # of the tables below the source
TRANSCRIPTS = "transcripts.csv"
REPOSITORY = "https://github.com/declare-lab/multimodal-deep-learning"
HOW_TO_GET = (
    f"Clone {REPOSITORY} and name its folder bc-LSTM/data with --source, or put what is in it into "
    "data/raw/mosi-utterances."
)


@dataclass(frozen=True)
class File:
    """A file as it was published: rows, columns, the SHA-256 of its text as `check_official` takes it, and its own."""

    rows: int
    columns: int
    text: str
    sha256: str


FILES = {
    TRANSCRIPTS: File(
        2199,
        4,
        "a44943735625368b6d6e92d376eb3612bb48e4ba86037fbcf514afbcb54b2375",
        "e7689e6d70720addd2a6b316419d245a68839c32b014ff426c406063ee777466",
    ),
    "text/text_train0.csv": File(
        1447,
        101,
        "3b5f60379476d9c2a6c9627b1fb91fdb03677ececdca9df1e646a32a5e00a422",
        "cc327045db6cc361a08b4037b97bb24de4ddb5efb381468c4835cc4a60674668",
    ),
    "text/text_test0.csv": File(
        752,
        101,
        "061e0df8fa644b21aae645254dd67e2ab91db87fdb6c14f13092e7814499bed1",
        "a343e22272919d1384c2075dbcdd5fef5aa9f9366b0552a83f7c3147b64b047a",
    ),
    "audio/audio_train0.csv": File(
        1447,
        74,
        "3ca2f17a2271b1062b7452f7cbc545877b69ca7e9e634b4a59bed7f97663956a",
        "5435398a54664e7b00304587dc59ae84a438852be033c2a2fba779588624a2a1",
    ),
    "audio/audio_test0.csv": File(
        752,
        74,
        "c2d9f9c9dcd5b7d2e3f2a21f77ef5fe2172795c1a830656cdc63507cbdaf4cfe",
        "ddd17eeefd3d951d51d4e2ef8a0d132652d8161e1886f71eb7262b7a14bffff6",
    ),
    "video/video_train0.csv": File(
        1447,
        101,
        "b7c392b24f1e181b303c2f2bb8cb5cda06afb886b891ea6eca99d130bf3e2b18",
        "b6efc0413132d627efd06f67f1706830e775e90af9a75696f535c48dbc73f12f",
    ),
    "video/video_test0.csv": File(
        752,
        101,
        "08b1f759c0ab259639c20298df60f76c17678900c4972d50f1bbcdd7ff20fd86",
        "cab836253d81100f59d533fa2ff65cd53c486be3ec9fd82203c5e25a7a77265f",
    ),
}


class Sentence(NamedTuple):
    """A row of transcripts.csv: its name, the number of its video, and "1" where it is positive, else "0"."""

    name: str
    video: str
    label: str


class MosiUtterances(Dataset):
    """CMU-MOSI's 2,199 sentences as one vector a modality, positive or negative, in a split of its own (real data)."""

    name = "mosi-utterances"
    HOW_TO_GET = HOW_TO_GET
    SPLIT_NAMES = (f"bc-lstm-{RULE_SPLIT}",)

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The sentences in `source`, a folder of bc-LSTM's form or a clone that holds one. InputError for an absent
        table, one of another form, or rows that don't belong together, and for other content unless `allow_missing`."""
        no_lists(self.name, splits)
        need_folder(source, HOW_TO_GET)
        below = find_file(source, [str(Path(place, TRANSCRIPTS)) for place in PLACES], HOW_TO_GET).parent
        notes: list[str] = []
        tables = {name: _table(below, name, allow_missing, notes) for name in FILES}
        parts = _parts(tables[TRANSCRIPTS], len(tables["text/text_train0.csv"]))
        samples = [sample for part, own in parts.items() for sample in _samples(below, part, own, tables)]
        return Plan(
            self.name,
            samples,
            CLASSES,
            {modality: features(1, width) for modality, width in WIDTHS.items()},
            "bc-LSTM's own, not the standard folds of CMU-MOSI; validation by a fixed rule; no video is in two splits",
            notes,
            HOW_TO_GET,
            split_name=self.SPLIT_NAMES[0],
            official_lists=not notes,
        )

    def official_files(self, source: Path, plan: Plan) -> Published:
        """The SHA-256 of the tables in the repository."""
        facts = {name: Facts(None, file.sha256) for name, file in FILES.items()}
        return Published(f"commit 111b401 of {REPOSITORY}", facts, HOW_TO_GET)


def _table(below: Path, name: str, allow_other: bool, notes: list[str]) -> Table:
    """A table of the source, compared with the official one."""
    path, official = below / name, FILES[name]
    text = read_text(path)
    table = read_table(path, text, HOW_TO_GET, width=official.columns)
    what = f"{name} of {REPOSITORY}"
    check_official(
        path, text, len(table), Official(what, official.rows, official.text, HOW_TO_GET), allow_other, notes
    )
    return table


def _parts(transcripts: Table, trained: int) -> dict[str, list[Sentence]]:
    """The sentences of train and test in the order of their tables' rows: the first videos, by number, are those that
    fill the `trained` rows. InputError where no number of videos does."""
    transcripts.classes(3, ("0", "1"))
    numbers = transcripts.numbers([2])[:, 0].tolist()
    rows = [Sentence(name, video, label) for name, _, video, label in transcripts.rows]
    last = sorted(numbers)[trained - 1] if trained <= len(rows) else max(numbers)
    parts = {
        "train": [row for row, number in zip(rows, numbers, strict=True) if number <= last],
        "test": [row for row, number in zip(rows, numbers, strict=True) if number > last],
    }
    if len(parts["train"]) != trained:
        raise InputError(
            f"{transcripts.path} does not fit text_train0.csv, whose {trained:,} rows are not all the sentences of its "
            f"first videos. {HOW_TO_GET}"
        )
    return {part: sorted(own, key=lambda row: row.label, reverse=True) for part, own in parts.items()}


def _samples(below: Path, part: str, sentences: list[Sentence], tables: dict[str, Table]) -> list[Sample]:
    """The samples of train or test, those of train in part for validation. InputError where a table has other labels
    than transcripts.csv."""
    splits = _validation(sentences) if part == "train" else {row.name: part for row in sentences}
    clips: list[dict[str, Clip]] = [{} for _ in sentences]
    for modality, width in WIDTHS.items():
        name = f"{FOLDERS[modality]}/{FOLDERS[modality]}_{part}0.csv"
        table = tables[name]
        if [_plain(label) for label in table.column(width)] != [row.label for row in sentences]:
            raise InputError(
                f"{table.path} has other labels, or others in number, than the sentences of {TRANSCRIPTS}. {HOW_TO_GET}"
            )
        for own, numbers in zip(clips, table.numbers(range(width)), strict=True):
            own[modality] = held(below, name, numbers)
    return [
        Sample(row.name, splits[row.name], CLASSES[int(row.label)], own)
        for row, own in zip(sentences, clips, strict=True)
    ]


def _validation(sentences: list[Sentence]) -> dict[str, str]:
    """The split of each sentence of the training part, by video."""
    videos = {row.name: row.video for row in sentences}
    return split_by_rule({row.name: [row.label] for row in sentences}, OF_TRAINING, videos)


def _plain(label: str) -> str:
    """A label that some tables write as a number with a point."""
    return label.removesuffix(".0")
