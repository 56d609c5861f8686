"""What later papers printed when they ran these methods again: benchmarks/published/later_papers.csv, whose names are
those of the papers. What has no name of ours here is left out, never guessed at."""

import csv
from functools import cache

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

Row = dict[str, str]


@cache
def printed() -> tuple[Row, ...]:
    """All rows of the file, by its columns."""
    path = benchmarks_folder() / "published" / "later_papers.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


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
