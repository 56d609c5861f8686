"""The data sets, one class each: where the media lie, the split, the labels, the quirks. See base.py."""

from balancemm_cli.data.datasets.ave import AVE
from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.cmu_mosi import CMUMosi
from balancemm_cli.data.datasets.crema_d import CremaD
from balancemm_cli.data.datasets.htad import HTAD
from balancemm_cli.data.datasets.kinetics_sounds import KineticsSounds
from balancemm_cli.data.datasets.manifest import Manifest
from balancemm_cli.data.datasets.mosi_utterances import MosiUtterances
from balancemm_cli.data.datasets.music_avqa import MusicAVQA
from balancemm_cli.data.datasets.spoken_digits import SpokenDigits
from balancemm_cli.data.datasets.ucf_101 import UCF101
from balancemm_cli.data.datasets.ucf_101_three import UCF101Three
from balancemm_cli.data.datasets.uci_digits import UCIDigits
from balancemm_cli.data.datasets.vggsound import VGGSound
from balancemm_cli.data.datasets.wikipedia import Wikipedia
from balancemm_cli.data.made.synthetic import Synthetic
from balancemm_cli.data.made.synthetic_ave import SyntheticAVE
from balancemm_cli.data.made.synthetic_cmu_mosi import SyntheticCMUMosi
from balancemm_cli.data.made.synthetic_modalities import SyntheticModalities
from balancemm_cli.data.made.synthetic_music_avqa import SyntheticMusicAVQA
from balancemm_cli.data.made.synthetic_ucf_101_three import SyntheticUCF101Three
from balancemm_cli.extensions import extensions

_OURS: tuple[Dataset, ...] = (
    Synthetic(),
    SyntheticModalities(),
    SyntheticAVE(),
    SyntheticMusicAVQA(),
    SyntheticCMUMosi(),
    SyntheticUCF101Three(),
    Manifest(),
    CremaD(),
    KineticsSounds(),
    VGGSound(),
    UCF101(),
    UCF101Three(),
    CMUMosi(),
    AVE(),
    MusicAVQA(),
    HTAD(),
    UCIDigits(),
    SpokenDigits(),
    MosiUtterances(),
    Wikipedia(),
)
_NAMED = {dataset.name: dataset for dataset in _OURS}


def _made(dataset: type[Dataset], name: str) -> Dataset:
    """A data set of another package. TypeError where it does not say of itself what every data set says."""
    if dataset.name != name:  # it is recorded under the one, and its plan says the other
        raise TypeError(f"its class has the name '{dataset.name}'")
    if not isinstance(dataset.HOW_TO_GET, str):
        raise TypeError("its HOW_TO_GET is no text")
    if not all(isinstance(values, tuple) and values for values in dataset.OPTIONS.values()):
        raise TypeError("its OPTIONS are not by name the values of each, the default first")
    return dataset()


DATASETS: dict[str, Dataset] = {**_NAMED, **extensions("bmm.datasets", Dataset, _NAMED, _made)}
