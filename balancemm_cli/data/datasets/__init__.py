"""The data sets, one module each: where the media lie, the split, the labels, the quirks.

A module has `plan(source, splits, allow_missing) -> Plan` and `HOW_TO_GET`, a sentence or two that say which
files to get from where. A data set with options of its own lists them in `OPTIONS`, the values of each with the
default first, and its `plan` takes them by name. One that makes its own media has
`make(source, workers, on_progress)` too. One that needs nothing from elsewhere has `EMBEDDED = True`.
"""

from types import ModuleType

from balancemm_cli.data.datasets import (
    ave,
    cmu_mosi,
    crema_d,
    kinetics_sounds,
    manifest,
    music_avqa,
    ucf_101,
    ucf_101_three,
    vggsound,
)
from balancemm_cli.data.made import (
    synthetic,
    synthetic_ave,
    synthetic_cmu_mosi,
    synthetic_modalities,
    synthetic_music_avqa,
    synthetic_ucf_101_three,
)

DATASETS: dict[str, ModuleType] = {
    "synthetic": synthetic,
    "synthetic-modalities": synthetic_modalities,
    "synthetic-ave": synthetic_ave,
    "synthetic-music-avqa": synthetic_music_avqa,
    "synthetic-cmu-mosi": synthetic_cmu_mosi,
    "synthetic-ucf-101-three": synthetic_ucf_101_three,
    "manifest": manifest,
    "crema-d": crema_d,
    "kinetics-sounds": kinetics_sounds,
    "vggsound": vggsound,
    "ucf-101": ucf_101,
    "ucf-101-three": ucf_101_three,
    "cmu-mosi": cmu_mosi,
    "ave": ave,
    "music-avqa": music_avqa,
}
