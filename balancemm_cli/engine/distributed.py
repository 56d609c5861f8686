"""One run in several processes started by torchrun: what they share, and how their results stay those of one run.

Every process holds the whole network and takes its part of each batch. Its loss is the sum over its own samples
divided by the number of samples in the whole batch. So gradients are added up, not averaged, and methods see the
gradient of the whole batch. DistributedDataParallel would average them, and has no place between the sum and the update
for methods to modulate. Batch normalisation takes its statistics from the whole batch too, so that the numbers are
those of one process.

Without torchrun there is one process, and nothing is exchanged.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from balancemm_cli.errors import InputError, OfFirstProcess, UsageError

TIMEOUT = timedelta(minutes=10)  # for which a process waits for another
STEPS_BETWEEN_CHECKS = 16  # on a GPU: for a request to stop; each makes the hosts wait for each other

# ---- the processes ------------------------------------------------------------------------------------------


def launched() -> int:
    """How many processes torchrun started for this run; 1 without torchrun."""
    if "RANK" not in os.environ:
        return 1
    count, place = _of_torchrun("WORLD_SIZE", 1), _of_torchrun("RANK", 0)
    if place >= count:
        raise UsageError(
            f"The environment has RANK={place} and WORLD_SIZE={count}. Start with torchrun, or unset both."
        )
    return count


def _of_torchrun(name: str, default: int) -> int:
    """A number of the environment. UsageError where it is none."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(
            f"The environment has {name}={text}, which is no number. Start with torchrun, or unset it."
        )
    return int(text)


def processes() -> int:
    """How many processes train this run together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number. Process 0 is the one that writes files and messages."""
    return dist.get_rank() if dist.is_initialized() else 0


def device_name(name: str) -> str:
    """The device of this process. On a machine with GPUs each process has one of its own, else all use the CPU.

    UsageError when a machine has fewer GPUs than processes.
    """
    here, place = _of_torchrun("LOCAL_WORLD_SIZE", 1), _of_torchrun("LOCAL_RANK", 0)
    if launched() == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    if name not in ("auto", "cuda"):
        raise UsageError(f"Under torchrun --device is auto, cpu or cuda, not '{name}'.")
    if torch.cuda.device_count() < here:
        raise UsageError(
            f"{here} processes on this machine need {here} GPUs, and there are {torch.cuda.device_count()}. "
            "Use fewer with --nproc-per-node, or --device cpu."
        )
    return f"cuda:{place}"


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the processes that torchrun started. InputError in a process that loses the others, UsageError where the
    environment lacks what they need to find each other."""
    if launched() == 1:
        yield
        return
    if not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UsageError(
            f"The environment has RANK and WORLD_SIZE={launched()}, but not what torchrun sets beside them. Start with "
            "torchrun, or unset both."
        )
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    with _lost_peers_explained():
        # Tensors in host memory are sent by gloo, also beside NCCL, so that sending them does not wait for a GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
        yield
    dist.destroy_process_group()


@contextmanager
def _lost_peers_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not lost_others(error):
            raise
        raise InputError(
            f"Process {os.environ['RANK']} lost the others of this run: one has ended or does not answer. "
            "Run the same command to go on from the last checkpoint."
        ) from error


def lost_others(error: BaseException) -> bool:
    """Whether an error says that another process of this run has ended or does not answer."""
    # gloo raises plain RuntimeErrors, and its name stands in them as the path of its source
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def said_once(error: InputError | KeyboardInterrupt) -> BaseException:
    """What to raise for an `error` that all processes meet at once, so that only the first one reports it."""
    if rank() == 0:
        return error
    return OfFirstProcess(error.exit_status if isinstance(error, InputError) else 130)


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process runs the block alone, then the others run it."""
    if rank() and processes() > 1:
        dist.barrier()
    yield
    if processes() > 1 and not rank():
        dist.barrier()


def check_same(state: Any, folder: object) -> None:  # noqa: ANN401 - plain values
    """InputError unless all processes found the same `state` in the run folder. The processes wait for each other."""
    if processes() == 1:
        return
    states: list[Any] = [None] * processes()
    dist.all_gather_object(states, state)
    if any(found != states[0] for found in states):
        raise InputError(
            f"The processes of this run find different checkpoints in {folder}. Put --runs where all machines "
            "see the same files."
        )


def agreed(asked: Callable[[], bool], device: torch.device) -> Callable[[], bool]:
    """A function that says whether any process was asked to stop. All processes get the same answer, and all must call
    it equally often.

    On a GPU only every 16th call exchanges answers, because the processes wait for each other in it.
    """
    if processes() == 1:
        return asked
    every = STEPS_BETWEEN_CHECKS if device.type == "cuda" else 1
    questions = 0

    def answer() -> bool:
        nonlocal questions
        questions += 1
        if questions % every:
            return False
        flag = torch.tensor(int(asked()))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    return answer


# ---- a batch ------------------------------------------------------------------------------------------------


def part(count: int) -> slice:
    """The samples of a batch of `count` that this process takes. Parts are consecutive and differ by at most one."""
    return slice(rank() * count // processes(), (rank() + 1) * count // processes())


def interleaved(own: list[Tensor]) -> list[Tensor]:
    """The processes' lists of tensors as one: the first of each, then the second of each, and so on."""
    if processes() == 1:
        return own
    lists: list[Any] = [None] * processes()
    dist.all_gather_object(lists, own)
    return [found for turn in zip_longest(*lists) for found in turn if found is not None]


def total(values: Tensor) -> Tensor:
    """The sum of `values` over all processes. Its gradient goes to this process's values unchanged.

    What is computed from the sum is the same in every process, and so is its gradient. torch's own differentiable sum
    adds the gradients up over the processes, which would count them several times.
    """
    return values if processes() == 1 else _Total.apply(values)  # pyright: ignore[reportReturnType]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        summed = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        return gradients[0]


def sum_gradients(network: nn.Module, loss: Tensor) -> Tensor:
    """Add up the gradients over all processes, in place and in one message; returns the sum of the losses."""
    if processes() == 1:
        return loss
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([loss[None], *(gradient.reshape(-1) for gradient in gradients)])
    dist.all_reduce(flat)
    summed, *parts = flat.split([1, *(gradient.numel() for gradient in gradients)])
    shaped = [values.view(gradient.shape) for values, gradient in zip(parts, gradients, strict=True)]
    torch._foreach_copy_(gradients, shaped)  # pyright: ignore[reportPrivateImportUsage]
    return summed[0]


def of_first(values: Iterable[Tensor]) -> None:
    """Replace `values` by those of the first process, in place."""
    if processes() > 1:
        for value in values:
            dist.broadcast(value, 0)


# ---- batch normalisation ------------------------------------------------------------------------------------


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make every batch normalisation of `network` take its statistics from the whole batch.

    torch's SyncBatchNorm does not run on a CPU, and on a GPU it waits for the device.
    """
    if processes() > 1:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.forward = _WholeBatchNorm(module)


class _WholeBatchNorm:
    """The forward of a batch normalisation over all processes; momentum and affine weights as torch has them.

    A single value, which has no deviation, is normalised by the running statistics, and these stay.
    """

    def __init__(self, module: _BatchNorm) -> None:
        self.module = module
        self.alone = module.forward  # serves evaluation

    def __call__(self, input: Tensor) -> Tensor:
        module = self.module
        if not module.training:
            return self.alone(input)
        mean, variance, count = whole_statistics(input.detach())
        if module.running_mean is not None and module.running_var is not None:
            assert module.momentum is not None and module.num_batches_tracked is not None
            several = count > 1
            module.num_batches_tracked.add_(several)
            mean = torch.where(several, mean, module.running_mean)
            variance = torch.where(several, variance, module.running_var)
            unbiased = variance * torch.where(several, count / (count - 1), 1)
            module.running_mean.lerp_(mean.to(module.running_mean.dtype), module.momentum)
            module.running_var.lerp_(unbiased.to(module.running_var.dtype), module.momentum)
        normalised = _Normalise.apply(input, module.weight, module.bias, mean, variance, count, module.eps)
        assert isinstance(normalised, Tensor)
        return normalised


def whole_statistics(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and count (0-dim) of inputs [B, C, …] over all processes' samples.

    Each process sends its own mean and variance. Sums of squares would lose digits by cancellation. B may be 0.
    """
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    channels, count = inputs.shape[1], inputs.numel() // inputs.shape[1]
    own = torch.zeros(
        2 * channels + 1, device=inputs.device, dtype=torch.promote_types(inputs.dtype, torch.float)
    )
    if count:
        variance, mean = torch.var_mean(inputs.to(own.dtype), axes, correction=0)
        own = torch.cat([mean, variance, own.new_full((1,), count)])
    gathered = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(gathered, own)
    means, variances, counts = torch.stack(gathered).split([channels, channels, 1], 1)  # one row per process
    shares = counts / counts.sum()
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean) ** 2)).sum(0)
    return mean, variance, counts.sum()


class _Normalise(torch.autograd.Function):
    """(x − mean) / √(variance + eps) · weight + bias, with the gradient that goes through mean and variance."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, mean, variance, count)
        ctx.eps = eps
        if not len(inputs):  # torch's kernels for the CPU die of it
            return torch.zeros_like(inputs)
        return nn.functional.batch_norm(inputs, mean, variance, weight, bias, False, 0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        inputs, weight, mean, variance, count = ctx.saved_tensors
        if len(inputs):
            # With fixed statistics: dy · weight / σ, Σ dy · x̂ and Σ dy. What is left is the part through them.
            of_inputs, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradients[0], inputs, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        else:
            of_inputs, of_weight, of_bias = map(torch.zeros_like, (inputs, weight, weight))
        sums = torch.cat([of_weight, of_bias])
        dist.all_reduce(sums)
        with_normalised, plain = torch.where(count > 1, sums / count, 0).chunk(2)
        inverse = (variance + ctx.eps).rsqrt()
        slope = weight * inverse**2 * with_normalised
        offset = weight * inverse * plain - slope * mean
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        correction = torch.addcmul(offset.view(shape), slope.view(shape), inputs)
        return of_inputs - correction.to(of_inputs.dtype), of_weight, of_bias, None, None, None, None
