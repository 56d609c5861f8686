"""What later papers printed when they ran these methods again: benchmarks/published/later_papers.csv, whose names are
those of the papers. What has no name of ours here is left out, never guessed at."""

import csv
from functools import cache

from balancemm_cli.errors import InputError
from balancemm_cli.resources import benchmarks_folder

METHODS = {
    "joint": "baseline",
    "OGM": "ogm",
    "OGM-GE": "ogm",
    "OPM": "opm",
    "G-Blending": "g-blending",
    "Greedy": "greedy",
    "PMR": "pmr",
    "AGM": "agm",
    "MMPareto": "mmpareto",
    "uniform baseline (multi-loss)": "unimodal-losses",
    "DGL": "dgl",
    "ARL": "arl",
    "LFM-LB": "lfm",
    "MSLR": "mslr",
    "D&R": "relearning",
    "MLA": "mla",
    "ReconBoost": "reconboost",
    "InfoReg": "inforeg",
}
MODELS = {
    "concat": "concat",
    "sum": "sum",
    "film": "film",
    "affine (FiLM)": "film",
    "gated": "gated",
    "gated (BiGated)": "gated",
    "MMTM": "mmtm",
}
ALONE = {
    "audio-only": "unimodal-first",
    "unimodal-1 (audio)": "unimodal-first",
    "visual-only": "unimodal-second",
    "video-only": "unimodal-second",
    "unimodal-2 (video)": "unimodal-second",
}
NETWORKS = {"mla": "shared-head", "reconboost": "shared-head"}  # theirs, whatever they are printed under
METRICS = {"acc": "accuracy", "map": "map", "macro_f1": "macro_f1"}
OTHER_TASKS = ("ave",)  # they classify whole clips of it, where our task is its segments
OWN_SPLITS = {("Diagnosing and Re-learning (ECCV 2024)", "crema-d"): "relearn"}

COLUMNS = ("source", "table", "dataset", "model", "method", "metric", "value", "std", "same_protocol", "note")

Row = dict[str, str]


@cache
def printed() -> tuple[Row, ...]:
    """All rows of the file, by its columns. InputError where it is missing or damaged."""
    path = benchmarks_folder() / "published" / "later_papers.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(map(_checked, csv.DictReader(file)))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): install bmm again.") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}): install bmm again.") from None


def _checked(row: Row) -> Row:
    """The row with the columns that are read. KeyError, TypeError or ValueError where it lacks one or its number."""
    if not 1 < float(row["value"]) <= 100:
        raise ValueError(f"{row['value']} can't be an accuracy in %")
    if row["same_protocol"] not in ("yes", "no"):
        raise ValueError(f"same_protocol is '{row['same_protocol']}'")
    return {name: row[name] for name in COLUMNS}


def names(row: Row) -> tuple[str, str] | None:
    """Model and method of a row as benchmarks/published names them; None where they, or its task, are not ours."""
    if row["dataset"] in OTHER_TASKS:
        return None
    if row["method"] in ALONE:
        return ALONE[row["method"]], "baseline"
    if row["model"] in MODELS and row["method"] in METHODS:
        return MODELS[row["model"]], METHODS[row["method"]]
    return None


def metric(row: Row) -> str | None:
    """What a row is of, by our name; of a modality alone its accuracy may be printed as that of the modality."""
    words = row["metric"].split()
    own = row["method"] in ALONE and words[:1] == ["acc"] and len(words) == 2
    return "accuracy" if own else METRICS.get(row["metric"])
