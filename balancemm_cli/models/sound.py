"""Networks whose modalities of sound have an encoder of their own, beside the recipe's for all others."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from balancemm_cli.errors import UsageError
from balancemm_cli.models.encoders import Choice, Encoder, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Concat, ModelSettings
from balancemm_cli.models.network import Network


class SoundNetwork(Network):
    """Base: `sound` for spectrograms, the recipe's encoder for pictures, transformers for sequences; concatenated."""

    name: ClassVar[str]
    sound: ClassVar[Callable[[Any], Encoder]]  # an encoder of [B, 1, F, T], from the model's settings

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "SoundNetwork":
        """The model for these inputs. UsageError without a modality of one channel, and for an unknown encoder."""
        sounds = [name for name, shape in inputs.items() if shape == 1]
        if not sounds:
            raise UsageError(
                f"Model {cls.name} needs a modality of sound as spectrograms, and {', '.join(inputs)} are not. "
                "Take concat."
            )
        if named := [name for name in sounds if name in choice.named]:
            raise UsageError(
                f"Model {cls.name} has an encoder of its own for sound, and encoders.{named[0]} names another. Leave "
                "it out, or take concat."
            )
        others = make_encoders(choice, {name: shape for name, shape in inputs.items() if name not in sounds})
        encoders = {name: others.get(name) or cls.sound(settings) for name in inputs}
        return cls(encoders, Concat(widths(encoders), classes, settings))


def bands(spectrograms: Tensor, count: int) -> Tensor:
    """Spectrograms [B, 1, F, T] to [B, count, T]: the mean of each of `count` equal parts of the F frequencies."""
    if spectrograms.ndim != 4:
        raise UsageError(
            "Models i-vector and x-vector take spectrograms for sound, not grey pictures. Take concat."
        )
    return adaptive_avg_pool2d(spectrograms, (count, None)).squeeze(1)  # pyright: ignore[reportArgumentType]
