"""The data sets, one class each: where the media lie, the split, the labels, the quirks. See base.py."""

from balancemm_cli.data.datasets.ave import AVE
from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.cmu_mosi import CMUMosi
from balancemm_cli.data.datasets.crema_d import CremaD
from balancemm_cli.data.datasets.kinetics_sounds import KineticsSounds
from balancemm_cli.data.datasets.manifest import Manifest
from balancemm_cli.data.datasets.music_avqa import MusicAVQA
from balancemm_cli.data.datasets.ucf_101 import UCF101
from balancemm_cli.data.datasets.ucf_101_three import UCF101Three
from balancemm_cli.data.datasets.vggsound import VGGSound
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
)
_NAMED = {dataset.name: dataset for dataset in _OURS}
DATASETS: dict[str, Dataset] = {
    **_NAMED,
    **{name: dataset() for name, dataset in extensions("bmm.datasets", Dataset, _NAMED).items()},
}
