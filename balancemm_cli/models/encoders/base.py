"""What every encoder answers: the class to derive a new one from."""

from collections.abc import Callable, Iterator

from torch import Tensor, nn


class Encoder(nn.Module):
    """Base of the encoders."""

    features: int

    def modulated(self) -> list[nn.Parameter]:
        """The weights of two or more axes: convolutions in a CNN, matrices in an MLP or a transformer."""
        return [weight for weight in self.parameters() if weight.ndim >= 2]

    def fit(self, batches: Callable[[], Iterator[Tensor]]) -> None:
        """Fit what is not trained by gradients, once, before a run's first step; into buffers.

        Each call of `batches` gives the modality's training inputs from the first to the last, not augmented. All
        processes of a run fit, and then take the first one's buffers.
        """
