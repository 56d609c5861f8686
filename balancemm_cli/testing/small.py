"""Small trainings on random inputs, on which the contract is held."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import distributed
from balancemm_cli.engine.acceleration import Stepper, arrange
from balancemm_cli.engine.cost import cost_of_step
from balancemm_cli.engine.evaluator import Evaluation, evaluate
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.pilot_training import pilot_network
from balancemm_cli.errors import UsageError
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.base import Epoch, Method, MethodSettings, Pilot, Step, drop
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import MODELS
from balancemm_cli.models.encoders import SegmentShape, SequenceShape, Shape
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import TASKS, Task

CLASSES = ("a", "b", "c", "d")
BATCH = 6
WIDTH = 64
EPOCHS = (0, 20)  # of which a training's steps are: before any warm-up's end, and after
STEPS_PER_EPOCH = 3

SHAPES: dict[str, dict[str, Shape]] = {
    "sound, pictures, features": {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3)},
    "sound and pictures": {"audio": 1, "visual": 3},
    "sound, pictures, question": {"audio": 1, "visual": 3, "question": SequenceShape(5, words=9)},
    "sequences": {"text": SequenceShape(5, width=3), "question": SequenceShape(5, words=9)},
    "vectors": {"audio": SequenceShape(1, width=6), "visual": SequenceShape(1, width=5)},
    "sound alone": {"audio": 1},
    "seconds of features": {
        "audio": SegmentShape(10, SequenceShape(1, width=6)),
        "visual": SegmentShape(10, SequenceShape(1, width=5, positions=4)),
    },
    "seconds of sound and pictures": {"audio": SegmentShape(10, 1), "visual": SegmentShape(10, 3)},
}
"""What a data set's modalities can be, as encoders get it."""


@dataclass(frozen=True)
class Case:
    """Which model is trained under which methods, on which of SHAPES."""

    model: str = "concat"
    method: str = "baseline"
    variant: str = "paper"
    shapes: str = "sound and pictures"
    task: str | None = None  # None: localisation of seconds, else classification
    settings: tuple[str, ...] = ()  # as with --set

    @property
    def inputs(self) -> dict[str, Shape]:
        """The modalities' shapes."""
        return SHAPES[self.shapes]

    @property
    def of_task(self) -> str:
        """The name of the task."""
        seconds = any(isinstance(shape, SegmentShape) for shape in self.inputs.values())
        return self.task or ("localisation" if seconds else "classification")


def random_batch(case: Case, count: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and labels of `count` samples; what a sound or a feature is like depends on the label."""
    generator = torch.Generator().manual_seed(1000 * seed + count)
    labels = random_labels(TASKS[case.of_task], count, generator)
    of_samples = labels[:, 0] if TASKS[case.of_task].column == "labels" else labels
    return {name: _values(shape, of_samples, generator) for name, shape in case.inputs.items()}, labels


def random_labels(
    task: Task, count: int, generator: torch.Generator, classes: Sequence[str] = CLASSES
) -> Tensor:
    """Labels of the form that a task has: classes [B] or [B, S], marks of the classes [B, C], or else numbers from -3
    to 3 [B]."""
    if not task.probabilities:
        return 6 * torch.rand(count, generator=generator) - 3
    if task.segments is None and not task.one_class:
        return torch.randint(2, (count, len(classes)), generator=generator)
    size = (count,) if task.segments is None else (count, task.segments)
    return torch.randint(len(classes), size, generator=generator)


def _values(shape: Shape, labels: Tensor, generator: torch.Generator) -> Tensor:
    if isinstance(shape, SegmentShape):
        of_seconds = labels if labels.ndim == 2 else labels[:, None].expand(-1, shape.count)
        flat = _values(shape.each, of_seconds.flatten(), generator)
        return flat.unflatten(0, (len(labels), shape.count))
    if isinstance(shape, SequenceShape):
        return _sequence(shape, labels, generator)
    size = (1, 33, 40) if shape == 1 else (shape, 2, 16, 16)
    noise = torch.randn(len(labels), *size, generator=generator)
    return noise + labels.view(-1, *[1] * len(size)) * (shape == 1)


def _sequence(shape: SequenceShape, labels: Tensor, generator: torch.Generator) -> Tensor:
    """[B, T], [B, T, D] or [B, T, P, D]; every second sample ends with a step of padding, where there are several."""
    if shape.words:
        values = torch.randint(1, shape.words, (len(labels), shape.length), generator=generator)
    else:
        size = (
            (shape.length, shape.positions, shape.width)
            if shape.positions > 1
            else (shape.length, shape.width)
        )
        values = torch.randn(len(labels), *size, generator=generator) + labels.view(-1, *[1] * len(size))
    if shape.length > 1:
        values[1::2, -1] = 0
    return values


class Dropped(Method):
    """Drops each modality of each sample with a probability; stands before the methods that are tested."""

    def __init__(self, modalities: list[str], probability: float) -> None:
        super().__init__(MethodSettings(), modalities)
        self.probability = probability

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Features with zeros for what is dropped."""
        u = step.streams.uniform((len(step.labels), len(features)), "testing/dropped", step.labels.device)
        step.keep = u >= self.probability
        return drop(features, step.keep)


class Training:
    """A training from nothing; `take` trains the step of an index on that step's own batch."""

    def __init__(
        self, case: Case, *switches: str, device: str = "cpu", dropped: float = 0, lr: float = 0.01
    ) -> None:
        overrides = [f"batch_size={BATCH}", "encoder=small", "pretrained=false", f"task={case.of_task}"]
        overrides += [f"optimizer.lr={lr}", *_narrow(case.model), *case.settings, *switches]
        config = resolve("manifest", case.model, case.method, case.variant, overrides=overrides)
        self.case, self.device, self.config, settings = case, device, config, config.settings
        self.task, names = config.task, list(case.inputs)
        methods = config.build_methods(names)
        self.network = config.build_network(case.inputs, CLASSES, methods).to(device)
        self.network = arrange(self.network, settings.speed)
        distributed.synchronise_batch_norm(self.network)
        self.optimizer = build_optimizer(self.network, settings.optimizer)
        for method in methods:
            method.on_start(self.pilot)
            method.load_state_dict({name: value.to(device) for name, value in method.state_dict().items()})
        self.methods = [Dropped(names, dropped), *methods] if dropped else methods
        self.stepper = Stepper(self.network, self.methods, self.optimizer, settings)
        self.looked_at = self.batch(98), self.batch(99)  # at the beginning of each epoch

    def pilot(self, modalities: list[str], epochs: int | None = None) -> Pilot:
        """Stands in for the trainings before a run: losses as if there had been one, and the network without it."""
        shapes = {name: self.case.inputs[name] for name in modalities}
        network = pilot_network(self.config, shapes, CLASSES, torch.device(self.device))
        fallen = 1 / (1 + len(modalities))
        return Pilot((1.4, 1.5), (1.4 * fallen, 1.5 * fallen + 0.1), network)

    def batch(self, index: int, count: int = BATCH) -> tuple[dict[str, Tensor], Tensor]:
        """This process's part of the batch of a step, on the device and in the default dtype."""
        inputs, labels = random_batch(self.case, count, index)
        mine = distributed.part(count)
        return {name: self._placed(values[mine]) for name, values in inputs.items()}, self._placed(
            labels[mine]
        )

    def _placed(self, values: Tensor) -> Tensor:
        return values.to(
            self.device, torch.get_default_dtype() if values.is_floating_point() else values.dtype
        )

    def take(self, index: int, count: int = BATCH) -> tuple[Tensor, Step]:
        """Train one step; returns its loss (0-dim) and the step as it went."""
        return self.train(index, *self.batch(index, count), count)

    def train(
        self, index: int, inputs: dict[str, Tensor], labels: Tensor, count: int = BATCH
    ) -> tuple[Tensor, Step]:
        """Train one step on these samples of a batch of `count`, the first of an epoch after what comes before that."""
        self.begin(index)
        return self.step(index, inputs, labels, count)

    def begin(self, index: int) -> None:
        """What comes before the step of an index, where that is the first one of an epoch."""
        if index % STEPS_PER_EPOCH == 0:
            looked_at = lambda *_: iter(self.looked_at)  # noqa: E731
            together = distributed.total, distributed.interleaved
            begins = Epoch(index // STEPS_PER_EPOCH, looked_at, looked_at, *together, training=looked_at)
            for method in self.methods:
                method.on_epoch_start(self.network, begins)

    def step(
        self, index: int, inputs: dict[str, Tensor], labels: Tensor, count: int = BATCH
    ) -> tuple[Tensor, Step]:
        """Train one step on these samples of a batch of `count`."""
        epoch = EPOCHS[index // STEPS_PER_EPOCH % len(EPOCHS)]
        streams = RandomStreams(0, epoch, index, count, distributed.part(count).start)
        progress = torch.full((), index / 12, device=self.device)
        step = Step(epoch, streams, labels, progress, self.task, total=distributed.total)
        return self.stepper(inputs, step), step

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "methods": [method.state_dict() for method in self.methods],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for method, of_method in zip(self.methods, state["methods"], strict=True):
            method.load_state_dict(of_method)


def _narrow(model: str) -> list[str]:
    """A model that has a setting `width` is tested at a small one."""
    kind = MODELS.get(model)
    return [f"{model}.width={WIDTH}"] if kind is not None and "width" in kind.Settings.model_fields else []


Trained = tuple[list[Tensor], dict[str, Tensor]]
"""What came of a training: of each step loss, number of samples kept, ρ and the methods' own numbers; and the weights
with the buffers after the last one."""


def trained(
    case: Case,
    *switches: str,
    steps: int = 6,
    counts: Sequence[int] = (BATCH,),
    device: str = "cpu",
    dropped: float = 0,
) -> Trained:
    """Train some steps, their batches of `counts` samples over and over; the rest as Training takes it."""
    training = Training(case, *switches, device=device, dropped=dropped)
    numbers = []
    for index in range(steps):
        loss, step = training.take(index, counts[index % len(counts)])
        kept = loss.new_full((), counts[index % len(counts)]) if step.kept is None else step.kept
        found = [loss[None], kept[None], *step.metrics.values()]
        found += [step.discrepancy.rho] if step.discrepancy else []
        numbers.append(torch.cat([one.flatten().double() for one in found]).cpu())
    return numbers, {name: value.cpu().clone() for name, value in training.network.state_dict().items()}


def assert_close(found: Trained, expected: Trained, tolerance: float) -> None:
    """Both trainings have the same numbers and weights, to a relative and absolute tolerance; 0: to the bit."""
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found[1], expected[1], rtol=tolerance, atol=tolerance)


def trained_together(cases: Sequence[tuple[Case, float]]) -> list[Trained | str]:
    """Each case trained in float64 on uneven batches, with what share of features dropped; in place of what could not
    be trained stands why. Run in two processes it gives what one gives."""
    torch.set_default_dtype(torch.float64)
    try:
        return [_trained_or_why(case, dropped) for case, dropped in cases]
    finally:
        torch.set_default_dtype(torch.float32)


def _trained_or_why(case: Case, dropped: float) -> Trained | str:
    try:  # of the batch of one sample one of two processes gets nothing
        return trained(case, steps=4, counts=(7, 6, 1, 5), dropped=dropped)
    except Exception as error:  # of the class that is tested: the other cases go on
        return f"{type(error).__name__}: {error}"


class Samples:
    """A split of random samples, as an evaluation reads one."""

    groups = None

    def __init__(self, case: Case, count: int) -> None:
        self.inputs, self.labels = random_batch(case, count, seed=99)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, rows: Iterable[np.ndarray], *_: object) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """The samples at `rows`, batch by batch."""
        for of_batch in rows:
            yield {name: values[of_batch] for name, values in self.inputs.items()}, self.labels[of_batch]


def evaluated(training: "Training") -> Evaluation:
    """The evaluation of a training's network as it is, on random samples."""
    source: Any = Samples(training.case, 9)
    same: Any = lambda inputs: inputs  # noqa: E731
    return evaluate(training.network, source, same, torch.device("cpu"), training.task)


@cache
def taken_by(model: str) -> tuple[str, ...]:
    """Which of SHAPES a model takes."""
    return tuple(
        name for name in SHAPES if refusal(lambda name=name: Training(Case(model, shapes=name))) is None
    )


def case_of(model: str, method: str = "opm+ogm") -> Case:
    """A model on the first of SHAPES with several modalities that it takes. LookupError where it takes none."""
    for name in taken_by(model):
        if len(SHAPES[name]) > 1:
            return Case(model, method, shapes=name)
    raise LookupError(f"Model {model} takes no modalities of the contract: {'; '.join(SHAPES)}.")


def tried(method: str, variant: str = "paper", shapes: str | None = None) -> Case:
    """A method on the model that it is tried on; on vectors, whose steps are the shortest, where that takes them and
    nothing else is asked for."""
    model, settings = METHODS[method].TRIED_ON
    shapes = shapes or ("vectors" if "vectors" in taken_by(model) else "sound and pictures")
    return Case(model, method, variant, shapes, settings=settings)


def refusal(attempt: Callable[[], object]) -> str | None:
    """The sentence with which an attempt is refused, None where it is not."""
    try:
        attempt()
    except UsageError as error:
        return str(error)
    return None


def made_or_refused(case: Case, *switches: str) -> "Training | str":
    """The training of a case, or the sentence with which it is refused."""
    try:
        return Training(case, *switches)
    except UsageError as error:
        assert_sentence(str(error))
        return str(error)


def assert_sentence(text: str) -> None:
    """What a user is told is one line that ends as a sentence does."""
    assert text.endswith((".", "?")) and "\n" not in text, f"'{text}' is no sentence on one line"


def assert_cost_is_counted(case: Case) -> None:
    """What a step costs is counted, and changes nothing of the training: its next step is that of one without. At the
    start of a training it is what it is after an epoch, in whichever step."""
    counted, plain = Training(case), Training(case)
    cost = _cost(counted, 0)
    weights = sum(weight.numel() for weight in counted.network.parameters())
    assert cost["multiply_adds"] > weights and cost["memory"] > 8 * weights
    assert torch.equal(counted.take(0)[0], plain.take(0)[0])
    torch.testing.assert_close(counted.state(), plain.state(), rtol=0, atol=0)
    for index in range(1, STEPS_PER_EPOCH + 1):
        counted.take(index)
    assert [_cost(counted, index) for index in range(3)] == [cost] * 3


def _cost(of: Training, index: int) -> dict[str, int]:
    """The cost of the step of an index, in the second of EPOCHS."""
    inputs, labels = of.batch(0)
    step = Step(EPOCHS[1], RandomStreams(0, EPOCHS[1], index, BATCH), labels, torch.zeros(()), of.task)
    return cost_of_step(of.network, of.methods, of.optimizer, inputs, step, DiscrepancySettings())
