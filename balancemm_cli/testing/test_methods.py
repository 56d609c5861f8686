"""What every method keeps, in both variants."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import PreparedSet
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import Interrupted, UsageError
from balancemm_cli.methods import METHODS, VARIANTS
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.testing import guards, sets
from balancemm_cli.testing.entries import assert_listed, assert_settings_explained
from balancemm_cli.testing.lengths import others_at_length
from balancemm_cli.testing.processes import Together
from balancemm_cli.testing.small import (
    STEPS_PER_EPOCH,
    Case,
    Training,
    assert_close,
    assert_cost_is_counted,
    assert_sentence,
    evaluated,
    made_or_refused,
    refusal,
    trained,
    tried,
)

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

of_each_method = pytest.mark.parametrize("method", METHODS)
in_both_variants = pytest.mark.parametrize("variant", VARIANTS)
second_at_length = pytest.mark.parametrize("variant", others_at_length(VARIANTS, "paper"))


# ---- a step ---------------------------------------------------------------------------------------------------


@second_at_length
@of_each_method
@pytest.mark.parametrize(
    "shapes", ["sound, pictures, features", "sequences", "seconds of features", "vectors"]
)
def test_it_trains_on_any_inputs_and_never_waits(method: str, variant: str, shapes: str) -> None:
    """Whatever the modalities are, in and after the modulated epochs: losses and weights stay finite, every encoder
    learns, each name of `METRICS` gets one number per modality and no other name does, and nothing in a hook fetches a
    value from the device (no item(), no branch on a tensor, no mask as index). Or it is refused in a sentence: a method
    that needs one class per sample where each second has one, and one that needs a model where that does not take the
    inputs."""
    case = tried(method, variant, shapes)
    lacks_classes = METHODS[method].needs_classes and case.of_task == "localisation"
    training = made_or_refused(case)
    if isinstance(training, str):
        assert lacks_classes or METHODS[method].TRIED_ON[0] != "concat", training
        return
    assert not lacks_classes
    before = [weight.clone() for weight in training.network.encoders.parameters()]
    for index in (0, 1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1):
        inputs, labels = training.batch(index)
        training.begin(index)
        with guards.no_waiting():
            loss, step = training.step(index, inputs, labels)
        assert loss.isfinite() and loss.ndim == 0
        assert step.keep is None or step.keep.shape == (len(labels), len(inputs))
        assert set(step.metrics) == set(METHODS[method].METRICS)
        assert all(values.shape == (len(inputs),) for values in step.metrics.values())
    for weight, old in zip(training.network.encoders.parameters(), before, strict=True):
        assert weight.isfinite().all() and not torch.equal(weight, old)


@needs_gpu
@in_both_variants
@of_each_method
def test_no_step_waits_on_a_gpu(method: str, variant: str) -> None:
    """The same on a GPU, which knows of every wait."""
    for again in (False, True):  # what is initialised by the first training may wait
        training = Training(tried(method, variant, "sound and pictures"), device="cuda")
        batches = [training.batch(index) for index in range(6)]
        for index, (inputs, labels) in enumerate(batches):
            training.begin(index)
            torch.cuda.set_sync_debug_mode("error" if again else "default")
            try:
                training.step(index, inputs, labels)
            finally:
                torch.cuda.set_sync_debug_mode("default")


@in_both_variants
@of_each_method
def test_an_emptied_batch_changes_nothing(method: str, variant: str) -> None:
    """A batch whose samples lost every modality, to a method that comes before, leaves weights and optimiser alone."""
    training = Training(tried(method, variant), "optimizer.weight_decay=0.1")
    training.take(0)
    dropping = Training(training.case, "optimizer.weight_decay=0.1", dropped=1)
    dropping.load({**training.state(), "methods": [{}, *training.state()["methods"]]})
    before = {name: value.clone() for name, value in dropping.network.named_parameters()}
    momenta = [state["momentum_buffer"].clone() for state in dropping.optimizer.state.values()]
    for index in (1, 4):
        _, step = dropping.take(index)
        assert step.keep is not None and not step.keep.any(), "what an earlier method dropped stays dropped"
    for name, weight in dropping.network.named_parameters():
        assert torch.equal(weight, before[name]), name
    for state, momentum in zip(dropping.optimizer.state.values(), momenta, strict=True):
        assert torch.equal(state["momentum_buffer"], momentum)


@second_at_length
@of_each_method
def test_counting_what_a_step_costs_leaves_the_training_alone(method: str, variant: str) -> None:
    """A run counts it at its start on a copy, which the method must allow to be made."""
    assert_cost_is_counted(tried(method, variant))


@of_each_method
def test_a_loss_that_is_not_finite_changes_no_weight(method: str) -> None:
    """One sample that is not a number must not spoil the weights: the run stops, with its last good checkpoint."""
    training = Training(tried(method))
    inputs, labels = training.batch(0)
    inputs["audio"][0] = float("nan")
    before = {name: value.clone() for name, value in training.network.named_parameters()}
    loss, _ = training.train(0, inputs, labels)
    assert not loss.isfinite()
    assert all(torch.equal(weight, before[name]) for name, weight in training.network.named_parameters())


# ---- switches -------------------------------------------------------------------------------------------------


@second_at_length
@of_each_method
def test_switches_train_as_eager_float32_does(method: str, variant: str) -> None:
    """Channels-last and bf16 change rounding alone."""
    case = tried(method, variant, "sound and pictures")
    eager = trained(case, steps=2)
    assert_close(trained(case, "speed.channels_last=true", steps=2), eager, 1e-3)
    halved = trained(case, "speed.amp=true", steps=2)
    assert_close((halved[0], {}), (eager[0], {}), 0.1)
    assert not torch.equal(halved[0][0], eager[0][0]), "bf16 was not in use"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch.compile's own imports
@of_each_method
def test_it_trains_compiled(method: str, compile_by: Callable[[str], None]) -> None:
    """Compiled encoders change rounding alone; a method that goes backward through them itself is refused."""
    compile_by("aot_eager")
    case, switch = tried(method), "speed.compile=true"
    if METHODS[method].two_backwards:
        return assert_sentence(refusal(lambda: trained(case, switch)) or "")
    assert_close(trained(case, switch, steps=3), trained(case, steps=3), 1e-3)


@needs_gpu
@in_both_variants
@of_each_method
def test_all_switches_at_once_on_a_gpu(method: str, variant: str) -> None:
    """Together they change rounding alone."""
    case = tried(method, variant, "sound and pictures")
    eager = trained(case, steps=14, device="cuda")
    names = ["amp", "channels_last"] + ["compile"] * (not METHODS[method].two_backwards)
    together = trained(case, *(f"speed.{name}=true" for name in names), steps=14, device="cuda")
    assert_close((together[0], {}), (eager[0], {}), 0.2)


# ---- processes, checkpoints, evaluation -----------------------------------------------------------------------


@of_each_method
def test_two_processes_are_one(method: str, together: Together) -> None:
    """Two processes that share each batch have the numbers of one: random numbers are drawn for the whole batch, sums
    and means taken over it by `step.total` and `step.mean`; also where most batches lose samples."""
    together.check(method)


def cases_of_two_processes(method: str) -> list[tuple[Case, float]]:
    """Both variants; of the official one most features are dropped beforehand."""
    return [(tried(method, "paper"), 0), (tried(method, "official"), 0.6)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """A prepared set for a run, whose epochs have three steps."""
    return sets.tiny_set(tmp_path_factory.mktemp("data") / "manifest")


@second_at_length
@of_each_method
def test_a_resumed_run_ends_as_one_that_never_stopped(
    method: str, variant: str, prepared: PreparedSet, tmp_path: Path
) -> None:
    """To the bit: `state_dict` has all that the method needs, as tensors, and `on_start` is not called again."""
    small = ["encoder=small", "pretrained=false", "batch_size=8", "epochs=2"]
    model, settings = METHODS[method].TRIED_ON
    config = resolve("manifest", model, method, variant, overrides=[*small, *settings])
    whole, stopped = (RunFolder(tmp_path / name, config, prepared) for name in ("whole", "stopped"))
    seen = []

    def interrupt(event: object) -> None:
        seen.append(event)
        if len(seen) == 6:  # an epoch of three steps, its record, and two steps of the next one
            signal.raise_signal(signal.SIGINT)

    train_run(whole, CPU)
    with pytest.raises(Interrupted):
        train_run(stopped, CPU, on_progress=interrupt)
    state = checkpoint.load_last(stopped.checkpoints)
    assert state is not None and state["step"] == 2
    train_run(stopped, CPU)
    for name in ("history.jsonl", "steps.arrow", "predictions.arrow"):
        assert (stopped.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    states = [checkpoint.load_last(folder.checkpoints) for folder in (whole, stopped)]
    kept = [[one["network"], one["methods"]] for one in states if one]
    torch.testing.assert_close(kept[1], kept[0], rtol=0, atol=0)


@of_each_method
def test_an_evaluation_leaves_the_training_alone(method: str) -> None:
    """Evaluated in between, with what the method attached, it trains as if it had not been."""
    plain, looked_at = Training(tried(method)), Training(tried(method))
    for index in range(3):
        evaluated(looked_at)
        losses = [training.take(index)[0] for training in (plain, looked_at)]
        assert torch.equal(*losses)
    torch.testing.assert_close(looked_at.state(), plain.state(), rtol=0, atol=0)


# ---- settings, pages ------------------------------------------------------------------------------------------


@of_each_method
def test_wrong_settings_are_refused_in_a_sentence(method: str) -> None:
    """A setting that there is not, and one that is no number or name of the right kind."""
    wrong = [
        f"{method}.nonsense=1",
        *(f"{method}.{key}=[[]]" for key in METHODS[method].Settings.model_fields),
    ]
    for override in wrong:
        key = override.partition("=")[0]
        with pytest.raises(UsageError) as refused:
            resolve("manifest", method=method, overrides=[override])
        assert key in str(refused.value), f"{override}: {refused.value}"
        assert_sentence(str(refused.value))


@of_each_method
def test_both_variants_are_there(method: str) -> None:
    """`VARIANTS` says for both what differs from the defaults, in settings that there are."""
    assert set(METHODS[method].VARIANTS) == set(VARIANTS)
    for variant in VARIANTS:
        resolve("manifest", method=method, variant=variant)


@of_each_method
def test_it_is_listed_and_explained(method: str) -> None:
    """`bmm list methods` has it, and a page of ours explains its settings."""
    assert_listed("methods", method)
    assert_settings_explained("methods", method, METHODS[method].Settings)
