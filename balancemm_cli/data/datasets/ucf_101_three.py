"""UCF-101-Three, made of the media of UCF-101.

The paper names the data set and its three modalities; no code for it is public. Here the difference is
|x(t+1) − x(t)| of each colour, at the moments of the RGB pictures and from the same files.
"""

from dataclasses import replace
from pathlib import Path

from balancemm_cli.data.datasets import ucf_101
from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.data.datasets.tree import need_folder

DIFFERENCE = {**ucf_101.RGB, "content": "rgb-difference"}
HOW_TO_GET = (
    "It is made of the media of ucf-101: `bmm prepare ucf-101-three --source data/raw/ucf-101`. "
    + ucf_101.HOW_TO_GET
)


class UCF101Three(Dataset):
    """UCF-101-Three: UCF-101 with a third modality, the differences between neighbouring RGB pictures."""

    name = "ucf-101-three"
    HOW_TO_GET = HOW_TO_GET
    OPTIONS = ucf_101.UCF101.OPTIONS
    SPLIT_NAMES = ucf_101.UCF101.SPLIT_NAMES

    def plan(
        self, source: Path, splits: Path | None, allow_missing: bool, split: str = "1", flow: str = "tv-l1"
    ) -> Plan:
        """The clips as those of UCF-101, with their differences. Errors as there."""
        need_folder(source, HOW_TO_GET)
        two = ucf_101.UCF101().plan(source, splits, allow_missing, split, flow)
        samples = [
            replace(sample, clips={**sample.clips, "rgb-difference": sample.clips["rgb"]})
            for sample in two.samples
        ]
        modalities = {**two.modalities, "rgb-difference": DIFFERENCE}
        return replace(two, name=self.name, samples=samples, modalities=modalities)
