"""TSN, Temporal Segment Networks (Wang et al., ECCV 2016; arXiv 1608.00859, Eq. 1 and 2; Table 9 of the paper).

A clip is cut into K parts of equal length, one frame of each goes through the same network, and a segmental
consensus, the average, joins the K scores. Which frames they are is a matter of loading: `frames.count` is K and
`frames.choice = "segments"` takes a random frame of each part in training and the middle one in evaluation.

1. With the linear head the average of the segments' scores is the score of their averaged feature, so the network
   is that of `concat`, and its exact split is exact here too.
2. The networks of the modalities are trained together, as everywhere in the paper; TSN's own streams are trained
   apart, and their scores added up with fixed weights.
3. One frame a segment for flow as well; TSN stacks five.
4. No dropout before the classifier and no frozen batch normalisation, which TSN needs to fine-tune on UCF-101:
   the paper mentions neither, and its other rows have neither.
"""

from collections.abc import Mapping
from typing import ClassVar

from balancemm_cli.errors import UsageError
from balancemm_cli.models.encoders import Choice, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Concat, ModelSettings
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class TSN(Network):
    """Segments of the clips through the recipe's encoder, averaged; concatenated with the other modalities."""

    origin: ClassVar = Origin(
        "Wang, Xiong, Wang, Qiao, Lin, Tang, Van Gool, ECCV 2016, arXiv 1608.00859",
        "mit-han-lab/temporal-shift-module",
        "numbers",
        "the consensus is held; modalities are trained together, flow has one frame a segment",
    )

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "TSN":
        """The recipe's encoder for pictures and spectrograms. UsageError without any, and for an unknown one."""
        check_pictures("tsn", inputs)
        encoders = make_encoders(choice, inputs)
        return cls(encoders, Concat(widths(encoders), classes, settings))


def check_pictures(model: str, inputs: Mapping[str, Shape]) -> None:
    """UsageError where no modality has channels, that is, where all are sequences."""
    if not any(isinstance(shape, int) for shape in inputs.values()):
        raise UsageError(
            f"Model {model} needs a modality of pictures or flow, and {', '.join(inputs)} are sequences. "
            "Take concat."
        )
