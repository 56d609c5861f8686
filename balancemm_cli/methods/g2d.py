"""G²D, gradient-guided distillation (Rakib, Bagavathi, ICCV 2025; arXiv 2506.21514).

Before the run one network a modality is trained alone, and teaches: the loss of the prediction f gets two terms for
each modality m with its teacher's answer t^m and feature g^m, and the modality whose teacher is surest of the batch
does not learn for the first part of the training,

    L = CE(f, y) + Σ_m [ w_logits T² KL(softmax(t^m / T) ‖ softmax(f / T)) + w_features mean((h^m − g^m)²) ]
    ∇θ^m ← 0   for m = argmax_m Σ_i p_i(y_i | t^m), while t < `until`

The teachers do not learn, in evaluation mode. Choices, and where the official code (rAIson-Lab/G2D, student.py and
utils.py) differs:

1. The paper's text was not at hand: equations are after the code. All weights and T are 1, as there.
2. `until` is a share of all updates. There the gradients are those of the convolutions and rest in epochs 0 to 150 of
   300; here as well those of the weights that OGM modulates. Momentum and weight decay go on, as there.
3. A teacher there is its best epoch on test samples. Here it is the last of a plain training by the run's recipe, over
   as many epochs as the run's or `epochs`; where a data set has no validation samples, on four fifths of the training
   samples (engine/pilot_training.py).
4. Where two teachers are equally sure the code stops; here nothing rests then.
5. M modalities, of which the surest one rests.
"""

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import kl_div

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Method, MethodSettings, Step, TrainPilot, scale_gradients
from balancemm_cli.models.fusion import Concat, ModelSettings
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class G2D(Method):
    """Gradient-guided distillation: learn from a teacher a modality, while the modality with the surest one waits.

    UsageError from `attach` for a model that is more than a fusion of the usual encoders' features.
    """

    origin: ClassVar = Origin(
        "Rakib, Bagavathi, ICCV 2025, arXiv 2506.21514",
        "rAIson-Lab/G2D",
        "numbers",
        "teachers are those of the last epoch; the surest modality waits for half of the updates",
    )

    class Settings(MethodSettings):
        """The settings; both variants are the code's."""

        logits: float = Field(default=1.0, ge=0)
        features: float = Field(default=1.0, ge=0)
        temperature: float = Field(default=1.0, gt=0)  # T
        until: float = Field(default=0.5, ge=0, le=1)  # as a share of all updates
        epochs: int | None = Field(default=None, gt=0)  # of the teachers' training; None: those of the run

        IDLE: ClassVar = {"temperature": ("logits", lambda weight: weight == 0)}

    needs_classes: ClassVar[bool] = True  # for their probabilities
    METRICS: ClassVar = ("teacher", "waits")  # the teacher's score, and 1 where the encoder does not learn

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.teachers: dict[str, Network] = {}
        self.taught: dict[str, tuple[Tensor, Tensor]] = {}  # feature [B, D_m] and answer [B, C] of this batch

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Make the teachers, which `on_start` or a checkpoint fills; there are no modules to train."""
        if type(network) is not Network:
            raise UsageError(
                "Method g2d needs a teacher for each encoder, and this model has more than encoders and a fusion. Take "
                "another, such as concat."
            )
        for name, width in network.widths.items():
            encoder = copy.deepcopy(network.encoders[name])
            head = Concat({name: width}, classes, ModelSettings())
            self.teachers[name] = Network({name: encoder}, head).eval().requires_grad_(False)  # pyright: ignore[reportArgumentType]
        return None

    def on_start(self, train_pilot: TrainPilot) -> None:
        """Train the teachers."""
        for name, teacher in self.teachers.items():
            trained = train_pilot([name], self.settings.epochs).network
            teacher.to(next(trained.parameters()).device).load_state_dict(trained.state_dict())

    @torch.no_grad()
    def on_inputs(self, inputs: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Ask the teachers; the inputs stay as they are."""
        for name, teacher in self.teachers.items():
            features = teacher.encode(inputs)
            self.taught[name] = features[name], teacher.classify(features)
        scores = [step.task.scores(answer, step.labels).sum() for _, answer in self.taught.values()]
        step.metrics["teacher"] = step.total(torch.stack(scores))
        return inputs

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss with the terms of the teachers added."""
        assert step.logits is not None
        heat = self.settings.temperature
        student = (step.logits / heat).log_softmax(-1)
        for name, (feature, answer) in self.taught.items():
            apart = kl_div(student, (answer / heat).softmax(-1), reduction="none").sum(-1)
            off = (step.features[name] - feature).square().mean(-1)
            loss = loss + step.mean(self.settings.logits * heat**2 * apart + self.settings.features * off)
        return loss

    def on_gradients(self, network: Network, step: Step) -> None:
        """Let the modality with the surest teacher wait."""
        assert step.progress is not None
        scores = step.metrics["teacher"]
        first = scores == scores.max()
        waits = first & (first.sum() == 1) & (step.progress < self.settings.until)
        step.metrics["waits"] = waits.to(scores.dtype)
        for weights, rests in zip(network.modulated().values(), waits, strict=True):
            scale_gradients(weights, ~rests)

    def state_dict(self) -> dict[str, Tensor]:
        """The teachers."""
        return {
            f"{name}/{key}": value
            for name, teacher in self.teachers.items()
            for key, value in teacher.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        for name, teacher in self.teachers.items():
            own = {
                key.removeprefix(f"{name}/"): value
                for key, value in state.items()
                if key.startswith(f"{name}/")
            }
            if own:
                teacher.to(next(iter(own.values())).device).load_state_dict(own)
