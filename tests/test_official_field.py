"""Later methods and heads, step for step against what the authors' code computed on small tensors (float64).

The figures are in field_official.json, or in a file of the same form that BMM_GOLDEN_FIELD names. Weights and batches
are those of golden.py, and the encoders those of test_official_methods.py, which stand for the authors' ResNets; the
linear head of concat is that of a case as it is, of separate heads each has a phase of its own, `head` and
`head_visual`. The authors' training functions ran as they are but for numbers in double precision, and for what a
case's test says.
"""

import pytest
import torch
from golden import cases, fill_encoder, fill_linear, make_batch
from test_official_methods import MODALITIES, PLAIN, Small, checked, close, pair
from torch import nn

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.base import Epoch, Method, MethodSettings, Step
from balancemm_cli.methods.lfm import alignment
from balancemm_cli.methods.smv import lagging, rightness, shapley
from balancemm_cli.models.film import FiLM
from balancemm_cli.models.fusion import Concat, ModelSettings, Sum
from balancemm_cli.models.mmcosine import MMCosine
from balancemm_cli.models.network import Network
from balancemm_cli.models.shared_head import SharedHead
from balancemm_cli.random_streams import RandomStreams

CASES = cases("field_official.json", "BMM_GOLDEN_FIELD")


pytestmark = pytest.mark.usefixtures("in_float64")


def of(method):
    return pytest.mark.parametrize("case", [name for name in CASES if CASES[name]["method"] == method])


def fusion_of(case, widths):
    classes, phases, gain = case["classes"], case["phases"], case["head_gain"]
    if case["method"] == "mmcosine":
        settings = MMCosine.Settings(scale=case["scale"], prediction="linear")
        fusion, whole = MMCosine(widths, classes, settings), nn.Linear(sum(widths.values()), classes)
        fill_linear(whole, phases["head"], gain)
        parts = whole.weight.detach().split(list(widths.values()), 1)
        for head, part in zip(fusion.heads.values(), parts, strict=True):
            head.weight.detach().copy_(part)
    elif case["method"] == "reconboost":
        settings = SharedHead.Settings(fusion="sum", hidden=case["hidden"])
        fusion = SharedHead(widths, classes, settings)
        fill_linear(fusion.answers.head[0], phases["head"], gain)
        fill_linear(fusion.answers.head[2], phases["head_last"], gain)
    elif case["method"] == "mla":
        fusion = SharedHead(widths, classes, SharedHead.Settings())
        fill_linear(fusion.answers.head, phases["head"], gain)
    elif case["fusion"] == "sum":
        fusion = Sum(widths, classes, Sum.Settings(**case.get("settings", {})))
        fill_linear(fusion.heads["audio"], phases["head"], gain)
        fill_linear(fusion.heads["visual"], phases["head_visual"], gain)
    elif case["fusion"] == "film":
        fusion = FiLM(widths, classes, FiLM.Settings())
        fill_linear(fusion.condition, phases["condition"], gain)
        fill_linear(fusion.head, phases["head"], gain)
    else:
        fusion = Concat(widths, classes, ModelSettings())
        fill_linear(fusion.head, phases["head"], gain)
    return fusion


class Norms(Method):
    """Keeps what the optimiser is given: the norms of the gradients of both encoders and of the fusion."""

    def on_gradients(self, network, step):
        parts = [*network.encoders.values(), network.fusion]
        self.found = [nn.utils.get_total_norm(gradients(part)).item() for part in parts]


def gradients(part):
    return [weight.grad for weight in part.parameters() if weight.grad is not None] or [torch.zeros(1)]


class Alone(Method):
    """Keeps the losses of what the network makes of each modality alone, before the update."""

    def __init__(self, network):
        super().__init__(MethodSettings(), MODALITIES)
        self.network = network

    def on_loss(self, loss, step):
        self.logits = torch.stack(
            list(self.network.logits_alone(step.features, detached=True).values())
        ).detach()
        self.losses = [step.losses(logits).mean().item() for logits in self.logits]
        return loss


class Training:
    """A case's network, methods and optimiser; `step` takes the next training step and holds what every case has."""

    def __init__(self, case, **settings):
        self.case, self.done = case, 0
        encoders = {
            name: Small(channels, case["widths"][name]) for name, channels in (("audio", 1), ("visual", 3))
        }
        for name, encoder in encoders.items():
            fill_encoder(encoder, case["phases"][name])
            nn.init.constant_(encoder.bn2.weight, case.get("norm_gain", {}).get(name, 1.0))
        widths = {name: encoder.features for name, encoder in encoders.items()}
        self.network = Network(encoders, fusion_of(case, widths))
        self.methods = []
        if case["method"] in METHODS:
            kind = METHODS[case["method"]]
            made = kind.Settings(**{**kind.VARIANTS["official"], **settings})
            self.methods = [kind(made, MODALITIES)]
            self.attach(self.methods[0])
        self.alone = Alone(self.network)
        self.norms = Norms(MethodSettings(), MODALITIES)
        self.optimizer = build_optimizer(self.network, OptimizerSettings(**case["optimizer"]))

    def attach(self, method):
        heads = method.attach(self.network, self.case["classes"])
        if heads is not None:
            self.network.extras[self.case["method"]] = heads
            for name in MODALITIES:
                fill_linear(heads[name], self.case["phases"][f"head_{name}"], self.case["head_gain"])

    def step(self, epoch=0, batch=None, keep=None, progress=None):
        case, index = self.case, self.done
        loss, step = self.take(epoch, self.alone, self.norms, progress, batch, keep)
        assert self.alone.losses == close(pair(case, "loss", index))
        assert self.norms.found == close([*pair(case, "norm", index), case["norm_head"][index]])
        return loss, step

    def take(self, epoch, before, after, progress=None, batch=None, keep=None):
        """The next training step, with a method before those of the case and one after them."""
        index = self.done
        inputs, labels = batch or make_batch(index, self.case)
        step = Step(epoch, RandomStreams(0, epoch, index), labels, progress, keep=keep)
        methods = [before, *self.methods, after]
        loss = train_step(self.network, methods, self.optimizer, inputs, step, PLAIN).item()
        self.done += 1
        return loss, step

    def assert_weights(self):
        state = {
            **self.network.encoders.state_dict(),
            **{name: value for name, value in self.network.fusion.state_dict().items()},
        }
        for name, expected in self.case["weights"].items():
            assert checked(state[name]) == close(expected), name


@of("mmcosine")
def test_mmcosine(case):
    """Loss, the losses of the cosines of each modality, gradients and weights; at the end what is predicted from."""
    case = CASES[case]
    training = Training(case)
    for index in range(case["steps"]):
        loss, _ = training.step()
        assert loss == close(case["loss"][index])
    training.assert_weights()
    with torch.no_grad():
        found = training.network.eval()(make_batch(0, case)[0])
    torch.testing.assert_close(found, torch.tensor(case["evaluated"]), rtol=1e-7, atol=1e-9)


@of("dgl")
def test_dgl(case):
    """Loss of the prediction, losses of each modality alone, gradients as they are after clipping, and weights."""
    case = CASES[case]
    training = Training(case, alpha=case["alpha"])
    for index in range(case["steps"]):
        loss, step = training.step()
        multimodal = step.losses(step.logits).mean().item()
        assert multimodal == close(case["loss_multimodal"][index])
        unimodal = pair(case, "loss", index)
        assert loss == close(case["loss_multimodal"][index] + case["alpha"] * sum(unimodal))
    training.assert_weights()


@of("arl")
def test_arl(case):
    """Losses, coefficients and what they are made of, gradients as they are after clipping, and weights.

    The code multiplies a gradient by a tuple, which torch refuses; the figures are those with the tensor in it. Where
    a case is `assigned`, its encoders were given the coefficients that the code computes of the step, else they had
    the 0.5 that it leaves them.
    """
    case = CASES[case]
    coefficient = "variance" if case["assigned"] else "constant"
    settings = {"gamma": case["gamma"], "temperature": case["temperature"], "coefficient": coefficient}
    training, modulated = Training(case, **settings), 0
    of = training.methods[0]
    for index, epoch in enumerate(case["epochs"]):
        loss, step = training.step(epoch)
        assert loss == close(case["loss"][index])
        assert step.losses(step.logits).mean().item() == close(case["loss_multimodal"][index])
        if epoch > 5:
            assert of.coefficients(training.alone.logits, step).tolist() == close(
                pair(case, "weight", modulated)
            )
            used = pair(case, "weight", modulated) if case["assigned"] else [0.5, 0.5]
            assert step.metrics["coefficient"].tolist() == close(used)
            modulated += 1
    assert modulated == len(case["weight_audio"]) > 0
    training.assert_weights()


@of("lfm")
def test_lfm(case):
    """The weight of each epoch, losses, alignment, gradients and weights; two steps an epoch.

    Where the weight is learned, the batch before the k-th epoch is the first 8 of the 16 samples of the batch 500 + k,
    and the network is in evaluation mode, as in the code after every evaluation.
    """
    case = CASES[case]
    training = Training(case, weight=case["weight"], rate=case["rate"])
    (method,) = training.methods
    for k, number in enumerate(case["epochs"]):
        inputs, labels = make_batch(500 + k, {**case, "batch_size": 16})
        batch = {name: values[:8] for name, values in inputs.items()}, labels[:8]
        before = {name: value.clone() for name, value in training.network.state_dict().items()}
        method.on_epoch_start(training.network, Epoch(number, lambda *_, batch=batch: iter([batch])))
        torch.testing.assert_close(training.network.state_dict(), before, rtol=0, atol=0)
        assert method.weight.item() == close(case["alignment_weight"][k])
        for index in (2 * k, 2 * k + 1):
            loss, step = training.step(number)
            assert loss == close(case["loss"][index])
            assert step.losses(step.logits).mean().item() == close(case["loss_multimodal"][index])
            found = alignment(training.alone.logits).mean().item()
            assert found == close(case["loss_alignment"][index])
    training.assert_weights()


@of("mslr")
def test_mslr(case):
    """Ratios of each epoch, losses, gradients as they are after scaling, and weights; two steps an epoch.

    The code is kkontras/MLB. Before an epoch its evaluation gives the accuracies on the batches 500 to 503 of 16
    samples each. Of its optimisers Adam without decay is AdamW without any.
    """
    case = CASES[case]
    names = ("rates", "window", "first_epoch", "last_epoch")
    training = Training(case, **{name: case[name] for name in names})
    (method,) = training.methods
    validation = [make_batch(500 + k, {**case, "batch_size": 16}) for k in range(4)]
    for number in range(case["epochs"]):
        method.on_epoch_start(training.network, Epoch(number, lambda *_: iter(()), lambda: iter(validation)))
        if number:
            assert method.accuracies[-1].tolist() == close(pair(case, "accuracy", number - 1))
        for index in (2 * number, 2 * number + 1):
            loss, step = training.step(number)
            assert loss == close(case["loss"][index])
            ratios = pair(case, "ratio", number)
            active = case["first_epoch"] <= number <= case["last_epoch"]
            factors = [s * rate if active else 1 for s, rate in zip(ratios, case["rates"], strict=True)]
            assert step.metrics["rate"].tolist() == close(factors)
    training.assert_weights()


@of("relearning")
def test_relearning(case):
    """How far each encoder goes back after each epoch, losses, gradients and weights; two steps an epoch.

    After epoch e the code looks at the training batches 700 + 10 e and the four that follow, and at the validation
    batches 500 to 502, of 16 samples each.
    """
    case, whole = CASES[case], {**CASES[case], "batch_size": 16}
    training = Training(case, **{name: case[name] for name in ("strength", "period", "times")})
    (method,) = training.methods
    validation = [make_batch(500 + k, whole) for k in range(3)]
    for number in range(case["epochs"]):
        looked_at = [make_batch(700 + 10 * (number - 1) + k, whole) for k in range(5)]
        method.on_epoch_start(
            training.network, Epoch(number, lambda *_, of=looked_at: iter(of), lambda: iter(validation))
        )
        assert method.alpha.tolist() == close(pair(case, "alpha", number - 1) if number else [0.0, 0.0])
        for index in (2 * number, 2 * number + 1):
            loss, _ = training.step(number)
            assert loss == close(case["loss"][index])
    training.assert_weights()


class Turns(Method):
    """Keeps of each update whose turn it was, the loss that was minimised, and the norms of its gradients."""

    def __init__(self, network):
        super().__init__(MethodSettings(), MODALITIES)
        self.network, self.found = network, []

    def on_loss(self, loss, step):
        self.loss = loss.item()
        return loss

    def on_gradients(self, network, step):
        (name,) = step.turn
        parts = [network.encoders[name], network.fusion]
        self.found.append(
            (name, self.loss, *(nn.utils.get_total_norm(gradients(part)).item() for part in parts))
        )


@of("mla")
def test_mla(case):
    """Of each turn its loss and gradients as they are after projection, the matrix of that, weights; and what is
    predicted at the end.

    The projected cases are those of the code with its plugin looking for "weight" in place of "module.weight", and
    dividing by h · k in place of the matrix k hᵀ; in the coasting ones zero_grad leaves zeros, as torch 1.8 does. Its
    one epoch is here the whole training, and its fusion was given one sample at a time.
    """
    case = CASES[case]
    training = Training(case, **{name: case[name] for name in ("projection", "coasting")})
    (method,), turns = training.methods, Turns(training.network)
    for index in range(case["steps"]):
        progress = torch.tensor(index / case["steps"])
        training.take(0, Method(MethodSettings(), MODALITIES), turns, progress)
        heads = case["norm_head"][2 * index : 2 * index + 2]
        expected = zip(MODALITIES, pair(case, "loss", index), pair(case, "norm", index), heads, strict=True)
        for found, one in zip(turns.found[-2:], expected, strict=True):
            assert found[0] == one[0] and found[1:] == close(one[1:])
        if case["projection"]:
            assert checked(method.away) == close(case["away"][2 * index + 1])
    assert len(turns.found) == 2 * case["steps"]
    training.assert_weights()
    with torch.no_grad():
        found = training.network.eval()(make_batch(0, case)[0])
    torch.testing.assert_close(found, torch.tensor(case["evaluated"]), rtol=1e-7, atol=1e-9)


@of("cggm")
def test_cggm(case):
    """Coefficients, losses, the term of the direction, gradients as they are after clipping, and weights.

    The code is that of Food-101 for as many classes as a case has. Its classifiers here are linear, and train at
    `classifier_rate` times the rate. Its cosine takes the head's weights whole, which fit a classifier's behind FiLM;
    behind a concatenation it was given those for the modality's feature. Its loss has the term of the step before.
    """
    case = CASES[case]
    training = Training(case, **{name: case[name] for name in ("rho", "lam", "clip", "classifier_rate")})
    (method,), before = training.methods, 0.0
    for index in range(case["steps"]):
        loss, step = training.step()
        assert step.metrics["balance"].tolist() == close(pair(case, "coefficient", index))
        assert method.accuracies.tolist() == close(pair(case, "accuracy", index))
        fused = case["loss"][index] - case["lam"] * before
        assert step.losses(step.logits).mean().item() == close(fused)
        assert loss == close(fused + case["loss_classifiers"][index])
        before = case["misdirection"][index]
    training.assert_weights()
    for name, head in method.heads.items():
        assert checked(head.weight) == close(case["classifiers"][name])


@of("inforeg")
def test_inforeg(case):
    """Losses, β in force, the traces of each epoch, gradients as they are after the pull, and weights; two steps an
    epoch.

    The code's two heads that nothing trains are frozen, for it squares their gradients, which they do not have. Widths
    in its text are those of a case.
    """
    case = CASES[case]
    training = Training(case)
    (method,) = training.methods
    for number in range(case["epochs"]):
        method.on_epoch_start(training.network, Epoch(number, lambda *_: iter(())))
        for index in (2 * number, 2 * number + 1):
            loss, step = training.step(number)
            assert step.losses(step.logits).mean().item() == close(case["loss"][index])
            assert loss == close(case["loss"][index] + sum(pair(case, "loss_share", index)))
            assert step.metrics["pull"].tolist() == close(pair(case, "pull", index))
        assert method.traces[-1].tolist() == close(pair(case, "trace", number))
    training.assert_weights()


@of("smv")
def test_smv(case):
    """What each modality is worth to each sample, which samples are drawn again, and training with them.

    The first `warm` steps are of the batches 100 to 102 in turn, whose samples are then valued. The code's data set
    was spared an argument that it does not take, and `chosen` is what it drew at random for its mean and its samples.
    Of the list of all samples every second one is then trained in its order, in batches of 8 of at most 40.
    """
    case = CASES[case]
    training = Training(case, level=case["level"], alpha=case["alpha"])
    (method,) = training.methods
    batches = [make_batch(100 + k, case) for k in range(3)]
    for k in range(case["warm"]):
        assert training.step(batch=batches[k % 3])[0] == close(case["loss"][k])
    epoch = Epoch(0, lambda *_: iter(()), training=lambda: iter(batches))
    values = shapley(rightness(training.network, epoch))
    count = len(values)
    assert values.T.tolist() == [case["contribution_audio"], case["contribution_visual"]]
    drawn = list(zip(case["further_rows"], case["further_drop"], strict=True))
    kept = {1: [False, True], 2: [True, False]}
    if case["level"] == "sample":
        rows, keep = method._of_samples(values, epoch)
        found = sorted(zip(rows.tolist(), keep.tolist(), strict=True))
        assert found == sorted((row, kept[of]) for row, of in drawn)
    else:
        modality, share = lagging(values[case["chosen"][0]].mean(0))
        assert int(case["alpha"] * share * count) == len(drawn)
        assert {2 - modality} == {of for _, of in drawn}
    inputs = {name: torch.cat([of[name] for of, _ in batches]) for name in MODALITIES}
    labels = torch.cat([of for _, of in batches])
    listed = [*((row, 0) for row in range(count)), *drawn][::2][:40]
    for k, at in enumerate(range(0, len(listed), 8)):
        rows, dropped = zip(*listed[at : at + 8], strict=True)
        batch = {name: values[list(rows)] for name, values in inputs.items()}, labels[list(rows)]
        keep = torch.tensor([kept.get(of, [True, True]) for of in dropped])
        loss, _ = training.step(batch=batch, keep=keep)
        assert loss == close(case["loss"][case["warm"] + k])
    training.assert_weights()


@of("g2d")
def test_g2d(case):
    """Losses, who waits, the scores of the teachers, gradients as they are after that, and weights; two steps an epoch.

    The teachers' weights are by rule as well, and their running statistics those of a new network.
    """
    case = CASES[case]
    training = Training(case, **{name: case[name] for name in ("temperature", "logits", "features")})
    (method,), count = training.methods, len(case["loss"])
    for name, teacher in method.teachers.items():
        fill_encoder(teacher.encoders[name], case["phases"][f"teacher_{name}"])
        fill_linear(teacher.fusion.head, case["phases"][f"teacher_head_{name}"], case["teacher_gain"])
    for index in range(count):
        loss, step = training.step(index // 2, progress=torch.tensor(index / count))
        assert loss == close(case["loss"][index])
        assert step.losses(step.logits).mean().item() == close(case["loss_fused"][index])
        assert step.metrics["teacher"].tolist() == close(pair(case, "teacher", index))
        assert step.metrics["waits"].tolist() == pair(case, "waits", index)
    training.assert_weights()


@of("reconboost")
def test_reconboost(case):
    """Losses, gradients, ω and weights; two steps an epoch, the phases following each other as in the code.

    Its optimiser begins anew in each phase; so momentum is cleared there. In the consolidated case the prediction of
    the modality that learns is no constant in the term that holds it to the former one's.
    """
    case = CASES[case]
    names = ("boosting", "rectification", "fit", "reconcile", "consolidate")
    training = Training(case, **{name: case[name] for name in names})
    (method,), plain = training.methods, Method(MethodSettings(), MODALITIES)
    epochs = case["stages"] * (case["boosting"] + case["rectification"])
    for epoch in range(epochs):
        if method.stage(epoch) != method.stage(epoch - 1):
            for state in training.optimizer.state.values():
                state["momentum_buffer"].zero_()
        for index in range(epoch * case["steps_per_epoch"], (epoch + 1) * case["steps_per_epoch"]):
            loss, _ = training.take(epoch, plain, training.norms)
            assert loss == close(case["loss"][index])
            assert training.norms.found == close([*pair(case, "norm", index), case["norm_head"][index]])
            assert training.network.fusion.rate.item() == close(case["rate"][index])
    assert training.done == len(case["loss"])
    training.assert_weights()
