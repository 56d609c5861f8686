"""x-vector and i-vector: the encoders of sound against their definitions, and what is fitted before training."""

import json
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchaudio
from scipy.fft import dct
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import open_set
from balancemm_cli.engine.run_evaluation import evaluate_run
from balancemm_cli.engine.trainer import Interrupted, train_run
from balancemm_cli.errors import UsageError
from balancemm_cli.models import build, i_vector
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.models.i_vector import (
    IVector,
    IVectorSettings,
    cepstra,
    differences,
)
from balancemm_cli.models.total_variability import posterior, reestimate
from balancemm_cli.models.x_vector import XVector, XVectorSettings
from balancemm_cli.runs.folder import RunFolder

CPU = torch.device("cpu")
SMALL = {"components": 4, "rank": 3, "iterations": 3}
SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3)}


def sounds(count, frames=40, seed=0):
    """Spectrograms [B, 1, 20, T] of different means, so that there is something to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(count, 1, 20, 1, generator=generator)
    return own + torch.randn(count, 1, 20, frames, generator=generator)


def inputs(batch=6):
    torch.manual_seed(0)
    return {
        "audio": sounds(batch),
        "visual": torch.randn(batch, 3, 1, 16, 16),
        "text": torch.randn(batch, 5, 3),
    }


# ---- x-vector -----------------------------------------------------------------------------------------------


def test_x_vector_is_the_original_table_written_out():
    torch.manual_seed(0)
    encoder = XVector(XVectorSettings(bands=20)).eval()
    for module in encoder.modules():  # normalisations that do something
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    given = sounds(1, frames=19)
    norm, layers = encoder.scale, encoder.frames
    x = (given[0, 0].T - norm.running_mean) / (norm.running_var + norm.eps).sqrt()  # [T, 20]

    def layer(one, spliced):
        affine, _, norm = one
        out = (spliced @ affine.weight.transpose(1, 2).flatten(1).T + affine.bias).clamp_min(0)
        return (out - norm.running_mean) / (norm.running_var + norm.eps).sqrt()

    contexts = [(-2, -1, 0, 1, 2), (-2, 0, 2), (-3, 0, 3), (0,), (0,)]
    for one, context in zip(layers, contexts, strict=True):
        reach = context[-1]
        times = range(reach, len(x) - reach)
        x = layer(one, torch.stack([torch.cat([x[t + c] for c in context]) for t in times]))
    assert x.shape == (19 - 14, 1500)
    pooled = torch.cat([x.mean(0), torch.from_numpy(np.sqrt(x.detach().numpy().var(0) + 1e-5))])
    for affine, _, norm in encoder.segment:
        pooled = (affine.weight @ pooled + affine.bias).clamp_min(0)
        pooled = (pooled - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(encoder(given)[0], pooled, rtol=1e-3, atol=1e-4)


def test_x_vector_needs_its_context():
    encoder = XVector(XVectorSettings())
    assert encoder(sounds(2, frames=15)).shape == (2, 512)
    with pytest.raises(UsageError, match=r"15 frames or more, and these have 14\. Use"):
        encoder(sounds(2, frames=14))


def test_a_sound_alone_is_normalised_by_the_running_statistics():
    """A batch of one sample has no deviation in the segment layers."""
    encoder = XVector(XVectorSettings(bands=20), [8] * 5, 6)
    encoder(sounds(5))
    segment = encoder.segment
    before = [value.clone() for value in segment.buffers()]
    pooled = torch.randn(1, 16)
    assert torch.equal(segment.train()(pooled), segment.eval()(pooled))
    assert all(torch.equal(value, old) for value, old in zip(segment.buffers(), before, strict=True))


# ---- i-vector: frames and statistics ------------------------------------------------------------------------


def test_cepstra_are_scipys_and_their_differences_torchaudios():
    given = torch.randn(2, 1, 80, 9)
    encoder = IVector(IVectorSettings(**SMALL))
    found = cepstra(given, encoder.cosines)
    pairs = given[:, 0].view(2, 40, 2, 9).mean(2)  # 80 frequencies to 40 bands
    plain = torch.from_numpy(dct(pairs.numpy(), axis=1, norm="ortho")[:, :20])
    first = torchaudio.functional.compute_deltas(plain)
    expected = torch.cat([plain, first, torchaudio.functional.compute_deltas(first)], 1).mT
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert differences(plain[:0]).shape == (0, 20, 9)


def test_statistics_use_the_posteriors_of_the_mixture():
    torch.manual_seed(0)
    encoder = IVector(IVectorSettings(**SMALL))
    frames = 0.3 * torch.randn(2, 50, 60)
    mixture = GaussianMixture(4, covariance_type="diag", random_state=0, reg_covar=1e-3).fit(
        frames.flatten(0, 1)
    )
    for name in ("weights", "means", "covariances"):
        buffer = getattr(encoder, "variances" if name == "covariances" else name)
        buffer.copy_(torch.from_numpy(getattr(mixture, f"{name}_")))
    counts, sums = encoder.statistics(frames)
    gamma = np.stack([mixture.predict_proba(clip) for clip in frames.numpy()])
    np.testing.assert_allclose(counts, gamma.sum(1), rtol=1e-3, atol=1e-3)
    centred = frames.numpy()[:, :, None] - mixture.means_
    np.testing.assert_allclose(sums, (gamma[..., None] * centred).sum(1), rtol=1e-2, atol=1e-2)


# ---- i-vector: the posterior, and EM ------------------------------------------------------------------------


def test_posterior_by_hand():
    """One Gaussian of one dimension: N = 3, F = 2, Σ = 0.5, T = 1: L = 1 + 3 / 0.5 = 7, mean 2 / 0.5 / 7."""
    one = torch.ones(1, 1)
    mean, factor = posterior(3 * one, 2 * one[None], 0.5 * one, one[None])
    assert mean.item() == pytest.approx(4 / 7) and factor.item() ** 2 == pytest.approx(7)


def gain(counts, sums, variances, subspace):
    """How much more likely the clips are than without T: Σ ½ bᵀ L⁻¹ b − ½ log |L|."""
    mean, factor = posterior(counts, sums, variances, subspace)
    projected = (factor.mT @ mean[..., None]).square().sum()
    return (projected / 2 - factor.diagonal(dim1=1, dim2=2).log().sum()).item()


def test_the_likelihood_is_that_of_the_marginal_gaussian():
    """Frames of known Gaussians, all of a clip as one long vector with covariance T Tᵀ + Σ."""
    torch.manual_seed(0)
    subspace, variances = torch.randn(2, 3, 2).double(), torch.rand(2, 3).double() + 0.5
    owners = [0, 0, 1, 0, 1]
    frames = torch.randn(5, 3).double()
    counts = torch.tensor([[3.0, 2.0]]).double()
    sums = torch.stack([sum(frames[t] for t in range(5) if owners[t] == c) for c in range(2)])[None]
    loadings = torch.cat([subspace[c] for c in owners])
    noise = torch.cat([variances[c] for c in owners]).diag()
    with_t, without = (
        multivariate_normal(np.zeros(15), covariance.numpy()).logpdf(frames.flatten().numpy())
        for covariance in (loadings @ loadings.T + noise, noise)
    )
    assert gain(counts, sums, variances, subspace) == pytest.approx(with_t - without)
    mean, _ = posterior(counts, sums, variances, subspace)
    regression = loadings.T @ torch.linalg.solve(loadings @ loadings.T + noise, frames.flatten())
    torch.testing.assert_close(mean[0], regression)


def test_em_raises_the_likelihood_and_finds_the_subspace():
    torch.manual_seed(0)
    clips, shape = 600, (3, 4, 2)
    truth, variances = torch.randn(shape).double(), torch.rand(3, 4).double() + 0.5
    w = torch.randn(clips, 2).double()
    counts = torch.randint(20, 60, (clips, 3)).double()
    noise = (counts[..., None] * variances).sqrt() * torch.randn(clips, 3, 4).double()
    sums = counts[..., None] * torch.einsum("cdr,br->bcd", truth, w) + noise
    subspace, gains = 0.1 * torch.randn(shape).double(), []
    for _ in range(15):
        gains.append(gain(counts, sums, variances, subspace))
        subspace = reestimate(counts, sums, variances, subspace)
    assert all(later > earlier for earlier, later in pairwise(gains[:5]))
    assert all(later > earlier - 1e-6 for earlier, later in pairwise(gains))  # converged, but for rounding
    covariance, expected = (t.flatten(0, 1) @ t.flatten(0, 1).T for t in (subspace, truth))
    assert (covariance - expected).norm() / expected.norm() < 0.1
    cosines = torch.linalg.svdvals(
        torch.linalg.qr(subspace.flatten(0, 1))[0].T @ torch.linalg.qr(truth.flatten(0, 1))[0]
    )
    assert cosines.min() > 0.999


def test_fitting_is_the_same_each_time_and_tells_clips_apart():
    batches = [sounds(16, seed=1), sounds(7, seed=2)]
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        encoder = IVector(IVectorSettings(**SMALL))
        random = encoder.subspace.clone()
        encoder.fit(lambda: iter(batches))
        found.append(encoder)
    assert not torch.equal(found[0].subspace, random)
    assert all(
        torch.equal(value, found[1].state_dict()[name]) for name, value in found[0].state_dict().items()
    )
    halves = [sounds(5, frames=80)[..., part] for part in (slice(0, 40), slice(40, 80))]
    one, two = (
        posterior(*found[0].statistics(found[0]._frames(half)), found[0].variances, found[0].subspace)[0]
        for half in halves
    )
    distances = torch.cdist(one, two)
    assert distances.diagonal().mean() < distances.mean() / 2  # two halves of a clip are near to each other
    assert found[0](batches[0][:0]).shape == (0, 256)


def test_the_mixture_sees_frames_from_all_over(monkeypatch):
    monkeypatch.setattr(i_vector, "UBM_FRAMES", 50)
    rows = torch.arange(1000.0)[:, None]
    assert i_vector._evenly(iter(rows[:90].split(30))).flatten().tolist() == list(range(90))
    found = i_vector._evenly(iter(rows.split(40))).flatten()
    assert 50 <= len(found) <= 100
    assert found[0] < 40 and found[-1] > 960 and found.diff().min() > 0 and found.diff().max() < 40


def test_more_gaussians_than_frames_are_refused():
    encoder = IVector(IVectorSettings(components=81))
    with pytest.raises(UsageError, match=r"i-vector\.components is 81, .* 80 frames\. Make it smaller\."):
        encoder.fit(lambda: iter([sounds(2)]))


# ---- both, as models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["x-vector", "i-vector"])
def test_a_set_without_sound_is_refused(model):
    with pytest.raises(UsageError, match=rf"Model {model} needs a modality of sound .* Take concat\.$"):
        build(model, "small", {"visual": 3, "flow": 2}, 4, seed=0)
    network = build(model, "small", {"grey": 1, "visual": 3}, 4, seed=0)
    with pytest.raises(UsageError, match="not grey pictures"):
        network.encode({"grey": torch.randn(2, 1, 1, 20, 20), "visual": torch.randn(2, 3, 1, 16, 16)})


def i_vector_run(prepared, runs):
    overrides = ["epochs=2", *(f"i-vector.{key}={value}" for key, value in SMALL.items())]
    config = resolve("synthetic", "i-vector", "opm+ogm", overrides=overrides)
    return RunFolder(runs, config, open_set(prepared / "synthetic"))


def test_a_run_fits_once_and_its_checkpoints_hold_it(prepared, tmp_path, monkeypatch):
    fits = []
    fit = IVector.fit
    monkeypatch.setattr(IVector, "fit", lambda self, batches: fits.append(fit(self, batches)))
    whole, stopped = (i_vector_run(prepared, tmp_path / name) for name in ("whole", "stopped"))
    result = train_run(whole, CPU)
    assert len(fits) == 1
    with pytest.raises(Interrupted):
        train_run(
            stopped, CPU, on_progress=lambda event: "epoch" in event and signal.raise_signal(signal.SIGTERM)
        )
    train_run(stopped, CPU)
    assert len(fits) == 2  # a resumed run does not fit again
    histories = [
        [json.loads(line) for line in (folder.path / "history.jsonl").read_text().splitlines()]
        for folder in (whole, stopped)
    ]
    assert histories[0] == histories[1]
    evaluated, _ = evaluate_run(whole.path, prepared, CPU)
    assert evaluated.test.accuracy == result["selections"]["last"]["accuracy"]
