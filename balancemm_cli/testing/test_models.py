"""What every model keeps, under OPM and OGM, on the inputs that it takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import checkpoint
from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Step
from balancemm_cli.models import MODELS, modalities_of
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.testing import guards
from balancemm_cli.testing.entries import assert_listed, assert_settings_explained
from balancemm_cli.testing.lengths import others_at_length
from balancemm_cli.testing.processes import Together
from balancemm_cli.testing.small import (
    CLASSES,
    SHAPES,
    Case,
    Training,
    assert_close,
    assert_cost_is_counted,
    assert_sentence,
    case_of,
    evaluated,
    made_or_refused,
    taken_by,
    trained,
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
of_each_model = pytest.mark.parametrize("model", MODELS)
concat_and_others_at_length = pytest.mark.parametrize("model", others_at_length(MODELS, "concat"))


# ---- inputs ---------------------------------------------------------------------------------------------------


@of_each_model
@pytest.mark.parametrize("shapes", SHAPES)
def test_inputs_are_taken_or_refused_in_a_sentence(model: str, shapes: str) -> None:
    """Whatever the modalities are: trained on, or refused by a UsageError that names the model."""
    case = Case(model, "opm+ogm" if len(SHAPES[shapes]) > 1 else "baseline", shapes=shapes)
    training = made_or_refused(case)
    if isinstance(training, str):
        assert model in training, f"'{training}' does not name {model}"
        return
    loss, step = training.take(0)
    assert loss.isfinite()
    assert all(weight.isfinite().all() for weight in training.network.parameters())
    seconds = (10,) if case.of_task == "localisation" else ()
    for logits in step.unimodal.values():
        assert logits.shape == (len(step.labels), *seconds, training.task.outputs(CLASSES))


@of_each_model
def test_every_weight_learns(model: str) -> None:
    """Each weight moves within a few steps, and OGM finds weights of each modality's encoder to modulate."""
    training = Training(case_of(model))
    before = {name: weight.clone() for name, weight in training.network.named_parameters()}
    for index in range(3):
        training.take(index)
    still = [
        name for name, weight in training.network.named_parameters() if torch.equal(weight, before[name])
    ]
    assert not still
    modulated = training.network.modulated()
    assert list(modulated) == list(training.case.inputs) and all(modulated.values())


@of_each_model
def test_weights_depend_on_the_seed_alone(model: str) -> None:
    """The same weights whatever was drawn before."""
    torch.manual_seed(1)
    first = Training(case_of(model)).network.state_dict()
    torch.manual_seed(2)
    torch.testing.assert_close(Training(case_of(model)).network.state_dict(), first, rtol=0, atol=0)


@of_each_model
def test_missing_modalities_leave_finite_logits(model: str) -> None:
    """Features of zeros, as of a sample that lost all modalities, give finite logits and gradients."""
    training = Training(case_of(model))
    features = training.network.encode(training.batch(0)[0])
    logits = training.network.classify({name: feature * 0 for name, feature in features.items()})
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(
        weight.grad is None or weight.grad.isfinite().all() for weight in training.network.parameters()
    )


# ---- each modality alone --------------------------------------------------------------------------------------


@of_each_model
def test_a_modality_alone_is_the_output_with_the_others_at_zero(model: str) -> None:
    """f^m is what the model gives of that modality's feature alone, but for how the bias is shared: a constant of each
    class."""
    zeros = [f"{model}.unimodal=zero-out"] * ("unimodal" in MODELS[model].Settings.model_fields)
    training = Training(case_of(model), *zeros)
    network = training.network.eval()
    with torch.no_grad():
        features = network.encode(training.batch(0)[0])
        found = network.unimodal_logits(features)
        assert list(found) == list(features)
        for kept, logits in found.items():
            others = {name: value if name == kept else value * 0 for name, value in features.items()}
            shares = (network.classify(others) - logits).flatten(0, -2)
            torch.testing.assert_close(shares, shares[:1].expand_as(shares), rtol=1e-4, atol=2e-5)


@of_each_model
def test_a_modality_alone_depends_on_no_other(model: str) -> None:
    """Whatever the others' features are, the logits of one modality are the same."""
    training = Training(case_of(model))
    network = training.network.eval()
    with torch.no_grad():
        features = network.encode(training.batch(0)[0])
        for kept, logits in network.unimodal_logits(features).items():
            others = {name: value if name == kept else 1 - value for name, value in features.items()}
            torch.testing.assert_close(network.unimodal_logits(others)[kept], logits, rtol=1e-4, atol=2e-5)


@of_each_model
def test_estimates_leave_the_network_alone(model: str) -> None:
    """`unimodal_logits` changes no weight, no running mean and no mode, and sends gradients to the features alone."""
    training = Training(case_of(model))
    network = training.network
    features = {name: value.detach() for name, value in network.encode(training.batch(0)[0]).items()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    given = {name: value.requires_grad_() for name, value in features.items()}
    logits = network.unimodal_logits(given)
    torch.cat(list(logits.values())).square().sum().backward()
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in network.modules())
    assert all(weight.grad is None for weight in network.parameters())
    assert all(value.grad is not None for value in given.values())


# ---- a step ---------------------------------------------------------------------------------------------------


@of_each_model
def test_no_step_waits_for_the_device(model: str) -> None:
    """Nothing in a forward fetches a value from the device."""
    training = Training(case_of(model))
    batches = [training.batch(index) for index in range(2)]
    with guards.no_waiting():
        for index, (inputs, labels) in enumerate(batches):
            training.train(index, inputs, labels)


@needs_gpu
@of_each_model
def test_no_step_waits_on_a_gpu(model: str) -> None:
    """The same on a GPU, which knows of every wait."""
    for again in (False, True):  # what is initialised by the first training may wait
        training = Training(case_of(model), device="cuda")
        batches = [training.batch(index) for index in range(3)]
        torch.cuda.set_sync_debug_mode("error" if again else "default")
        try:
            for index, (inputs, labels) in enumerate(batches):
                training.train(index, inputs, labels)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@concat_and_others_at_length
def test_counting_what_a_step_costs_leaves_the_training_alone(model: str) -> None:
    """A run counts it at its start on a copy, which the model must allow to be made."""
    assert_cost_is_counted(case_of(model, "baseline"))


@of_each_model
def test_an_emptied_batch_changes_no_weight(model: str) -> None:
    """Where every sample lost every modality, weights stay as they are."""
    training = Training(case_of(model), "optimizer.weight_decay=0.1", dropped=1)
    before = {name: value.clone() for name, value in training.network.named_parameters()}
    training.take(0)
    assert all(torch.equal(weight, before[name]) for name, weight in training.network.named_parameters())


@of_each_model
def test_a_process_without_samples_takes_part(model: str) -> None:
    """A batch of no samples gives no loss, and a gradient to every weight, for the processes add up their gradients."""
    training = Training(case_of(model))
    network = training.network.eval()  # batch normalisation needs a sample to train
    inputs, labels = training.batch(0)
    empty = {name: values[:0] for name, values in inputs.items()}
    loss, _ = training.train(0, empty, labels[:0])
    assert loss == 0 and all(weight.isfinite().all() for weight in network.parameters())
    network.zero_grad()
    features = network.encode(empty)
    step = Step(0, RandomStreams(0, batch=4), labels[:0], task=training.task)
    network.objective(network.classify(features).sum(), features, step).backward()
    without = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or weight.grad.isnan().any()
    ]
    assert not without


@of_each_model
def test_two_processes_are_one(model: str, together: Together) -> None:
    """Two processes that share each batch have the numbers of one, also where most batches lose samples."""
    together.check(model)


def cases_of_two_processes(model: str) -> list[tuple[Case, float]]:
    """The model with half of all features dropped."""
    return [(case_of(model), 0.5)]


# ---- switches -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch.compile's own imports
@of_each_model
def test_switches_train_as_eager_float32_does(model: str, compile_by: Callable[[str], None]) -> None:
    """Channels-last, bf16 and compiled encoders change rounding alone. What is compiled is the encoding, which models
    that only fuse share; the backward of one of them is traced too."""
    compile_by("aot_eager" if model == "concat" else "eager")
    pictures = "sound and pictures"
    case = Case(model, "opm+ogm", shapes=pictures) if pictures in taken_by(model) else case_of(model)
    eager = trained(case, steps=2)
    encodes = model == "concat" or issubclass(MODELS[model], Network)
    for switch in ("channels_last", "compile") if encodes else ("channels_last",):
        assert_close(trained(case, f"speed.{switch}=true", steps=2), eager, 1e-3)
    halved = trained(case, "speed.amp=true", steps=2)
    assert_close((halved[0], {}), (eager[0], {}), 0.15)
    assert not torch.equal(halved[0][0], eager[0][0]), "bf16 was not in use"


# ---- checkpoints, evaluation ----------------------------------------------------------------------------------


@of_each_model
def test_it_goes_on_from_its_checkpoint_to_the_bit(model: str, tmp_path: Path) -> None:
    """`state_dict` has all that the model needs."""
    whole, resumed = Training(case_of(model)), Training(case_of(model))
    whole.take(0)
    checkpoint.save(tmp_path, 1, whole.state())
    state = checkpoint.load_last(tmp_path)
    assert state is not None
    resumed.load(state)
    assert torch.equal(whole.take(1)[0], resumed.take(1)[0])
    torch.testing.assert_close(resumed.state(), whole.state(), rtol=0, atol=0)


@of_each_model
def test_an_evaluation_leaves_the_training_alone(model: str) -> None:
    """Evaluated twice it gives the same, and changes no weight, running mean or mode."""
    training = Training(case_of(model))
    training.take(0)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    first, second = evaluated(training), evaluated(training)
    assert (first.predictions == second.predictions).all()
    torch.testing.assert_close(training.network.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in training.network.modules())


# ---- settings, pages ------------------------------------------------------------------------------------------


@of_each_model
def test_wrong_settings_are_refused_in_a_sentence(model: str) -> None:
    """A setting that there is not, and one that is no number or name of the right kind."""
    wrong = [f"{model}.nonsense=1", *(f"{model}.{key}=[[]]" for key in MODELS[model].Settings.model_fields)]
    for override in wrong:
        key = override.partition("=")[0]
        with pytest.raises(UsageError) as refused:
            resolve("manifest", model, overrides=[override])
        assert key in str(refused.value), f"{override}: {refused.value}"
        assert_sentence(str(refused.value))


@of_each_model
def test_it_is_listed_and_explained(model: str) -> None:
    """`bmm list models` has it, and a page of ours explains its settings."""
    assert modalities_of(model, ["audio", "visual"]) == ["audio", "visual"]
    assert_listed("models", model)
    assert_settings_explained("models", model, MODELS[model].Settings)
