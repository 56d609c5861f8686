"""ReconBoost (Hua, Xu, Bao, Yang, Huang, ICML 2024; arXiv 2405.09321).

The modalities learn in turn, stage by stage, each to be right where the others are not, as a learner in boosting. In a
stage of modality m the first epochs train its encoder and the shared head alone, by

    L = 1/C Σ_c y_c (w_fit − w_reconcile q_c) (−log p^m_c) + w_consolidate ‖p^m − p^k‖² / C

with p^m = softmax(f^m), q that of the prediction without m, which is a constant, and k the modality of the stage
before. So a sample counts the less the surer the others are of its class. The further epochs rectify all together by
the loss of the prediction, f = ω Σ_m f^m with ω trained. Choices, and where the official code (huacong/ReconBoost,
train.py) differs:

1. 4 epochs of each kind, w_fit = 5 and w_reconcile = 1: its command for CREMA-D. 4 and 1 on AVE, 1 and 0.25 on MOSI.
2. In the code both predictions of the last term are constants, so that it trains nothing: `consolidate` 0 (official).
   The paper's text was not at hand; its weight 0.5 in the code is taken here, and p^m learns from it (paper).
3. As there, before each modality had a stage only those that had one are predicted from and rectified, and in the first
   stage q = 1. Its commands load encoders that were trained alone beforehand; here they start as in any other run.
4. Its optimiser begins anew, without momentum, at every change of what is trained. Here momentum stays.
5. Its test predictions, one of which chooses the epoch, leave out the last batch where that is not full, as training.
6. M modalities in their order. It needs model shared-head with `shared-head.fusion=sum`; the code's has hidden=256.
7. The encoders at rest see the batches there as well, up to twice, which their running statistics know: here once.
"""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Method, MethodSettings, Step
from balancemm_cli.models.network import Network
from balancemm_cli.models.shared_head import SharedHead
from balancemm_cli.origin import Origin


class ReconBoost(Method):
    """Boosting with modalities for learners: each in turn corrects the others, then all are rectified together."""

    origin: ClassVar = Origin(
        "Hua, Xu, Bao, Yang, Huang, ICML 2024, arXiv 2405.09321",
        "huacong/ReconBoost",
        "numbers",
        "momentum stays from stage to stage; encoders are not trained alone beforehand",
    )

    class Settings(MethodSettings):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        boosting: int = Field(default=4, ge=1)  # epochs of a stage in which one modality learns
        rectification: int = Field(default=4, ge=1)  # epochs of it after these, in which all learn
        fit: float = Field(default=5.0, ge=0)
        reconcile: float = Field(default=1.0, ge=0)
        consolidate: float = Field(default=0.5, ge=0)

    needs_classes: ClassVar[bool] = True  # for their probabilities
    VARIANTS: ClassVar = {"paper": {}, "official": {"consolidate": 0.0}}
    two_backwards: ClassVar[bool] = True  # one through some encoders alone, which compiled ones can't take
    TRIED_ON: ClassVar = ("shared-head", ("shared-head.fusion=sum",))

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.fusion: SharedHead | None = None

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the fusion; there are no modules to train. UsageError where it does not add up one head's answers."""
        if not isinstance(network.fusion, SharedHead) or network.fusion.rate is None:
            raise UsageError(
                "Method reconboost adds up what one head answers to each modality: take model shared-head with "
                "shared-head.fusion=sum."
            )
        self.fusion = network.fusion
        return None

    def stage(self, epoch: int) -> tuple[int, bool]:
        """Which stage an epoch is of, counted from 0, and whether one modality learns in it alone."""
        number, left = divmod(epoch, self.settings.boosting + self.settings.rectification)
        return number, left < self.settings.boosting

    def turns(self, step: Step) -> Sequence[Sequence[str]]:
        """One update: of the stage's modality, or of all that had a stage so far."""
        stage, boosts = self.stage(step.epoch)
        return [[self.modalities[stage % len(self.modalities)]] if boosts else self.modalities[: stage + 1]]

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss of the stage's modality beside the others, or that of what is predicted so far."""
        assert self.fusion is not None
        stage, boosts = self.stage(step.epoch)
        if not boosts and stage + 1 >= len(self.modalities):
            return loss
        alone = self.fusion.answers(step.features)
        if not boosts:
            return step.mean(step.losses(self.fusion.fuse({name: alone[name] for name in step.turn})))
        (name,) = step.turn
        own = alone.pop(name)
        others = {one: alone[one].detach() for one in self.modalities[:stage] if one != name}
        weight = self.settings.fit - self.settings.reconcile * self._score(others, step)
        boosted = step.mean(weight * step.losses(own)) / own.shape[-1]
        if not others:
            return boosted
        former = others[self.modalities[(stage - 1) % len(self.modalities)]]
        apart = (own.softmax(-1) - former.softmax(-1)).square().mean(-1)
        return boosted + self.settings.consolidate * step.mean(apart)

    def _score(self, others: dict[str, Tensor], step: Step) -> Tensor | float:
        """q of the true class [B]: what the others' prediction gives it; 1 where there is none yet."""
        if not others:
            return 1.0
        assert self.fusion is not None
        return step.task.scores(self.fusion.fuse(others).detach(), step.labels)
