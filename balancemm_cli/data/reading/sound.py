"""Sound: one channel of int16 out of any file that FFmpeg reads."""

from contextlib import suppress
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from balancemm_cli.data.reading.files import MediaError, open_media
from balancemm_cli.data.reading.stream import Stream

SILENCE = 1  # int16 steps (-90 dB): digital silence, also after dither; recordings of a quiet room exceed it
TAIL = 0.5  # seconds decoded beyond the end, so that the resampler ends cleanly
CANCELLED = 0.01  # of the loudest channel's level (-40 dB): a mix below is what is left of channels against each other
LOUD, LOUD_SHARE = (
    1.25,
    0.01,
)  # of full scale, as lossy codecs overshoot; and the share of samples that may exceed it
LOUDEST = 4.0  # of full scale, which no sample may exceed
FULL_SCALE = 2**15


def read_audio(
    path: Path,
    rate: int,
    start: float | None = None,
    end: float | None = None,
    whole: bool = True,
    loud: bool = True,
) -> np.ndarray:
    """The sound from start to end (seconds), mixed to one channel and resampled to `rate` Hz, int16 [T].

    Where the channels cancel each other, so that the mix has less than a hundredth of the loudest one's level, that
    one is taken. `whole=False` accepts a file that ends early, `loud=False` one that is silent. Raises MediaError.
    """
    samples, stream = _read(path, rate, start, end, whole)
    if (
        stream.channels > 1 and _level(samples) < CANCELLED
    ):  # else it cannot be below that of the loudest channel
        channels = [_read(path, rate, start, end, whole, channel)[0] for channel in range(stream.channels)]
        loudest = max(channels, key=_level)
        samples = loudest if _level(samples) < CANCELLED * _level(loudest) else samples
    if not len(samples):
        raise MediaError("no audio samples")
    full = samples.max() == FULL_SCALE - 1 or samples.min() == -FULL_SCALE  # where what is no sound ends up
    if full or stream.decoder.startswith("pcm_f"):
        _check_floats(path, start or 0.0, end, whole)
    if loud and max(samples.max(), -int(samples.min())) <= SILENCE:
        raise MediaError("silent", "the audio is digital silence")
    return samples


def _read(
    path: Path, rate: int, start: float | None, end: float | None, whole: bool, channel: int | None = None
) -> tuple[np.ndarray, Stream]:
    """The samples of the mix, or of one channel, and where they are from."""
    begin = start or 0.0
    with open_media(path, whole) as (container, log):
        stream = Stream(container, "audio", path, log)
        samples = _cut(stream, _Mono(rate, channel), rate, begin, end)
        stream.check(begin, end, whole)
    return samples, stream


def _check_floats(path: Path, begin: float, end: float | None, whole: bool) -> None:
    """MediaError for samples that are floats and no sound."""
    loud = count = 0
    with open_media(path, whole) as (container, log):
        stream = Stream(container, "audio", path, log)
        for _, until, frame in stream.timed(begin, end):
            if until <= begin or not frame.format.name.startswith(("flt", "dbl")):
                continue
            sizes = np.abs(frame.to_ndarray())
            peak = sizes.max(initial=0)
            if not np.isfinite(peak):
                raise MediaError("damaged", "its sound has numbers that are not finite (NaN or infinite)")
            if peak > LOUDEST:
                raise MediaError("damaged", f"its sound is out of range: {peak:.3g} times full scale")
            loud += int((sizes > LOUD).sum()) if peak > LOUD else 0
            count += sizes.size
    if loud > LOUD_SHARE * count:
        raise MediaError("damaged", "its sound is out of range: much of it exceeds full scale")


def _cut(stream: Stream, mono: "_Mono", rate: int, begin: float, end: float | None) -> np.ndarray:
    """The samples from `begin` to `end`; what lies before is decoded, as the resampler needs it, but not kept."""
    first: float | None = None
    skip = 0  # samples of `parts` that lie before `begin`
    parts: list[np.ndarray] = []
    for time, _, frame in stream.timed(begin, None if end is None else end + TAIL):
        if first is None:
            first, skip = time, max(0, round((begin - time) * rate))
        parts += mono.resampled(frame)
        while parts and len(parts[0]) <= skip:
            skip -= len(parts.pop(0))
    if first is None:
        raise MediaError("no audio samples")
    parts += mono.rest()
    samples = np.concatenate([np.zeros(0, np.int16), *parts])[skip:]
    if end is not None:
        samples = samples[: max(0, round((end - first) * rate)) - max(0, round((begin - first) * rate))]
    return samples


class _Mono:
    """Mixes frames to one channel, or takes one, and resamples it; anew where the file changes its format."""

    def __init__(self, rate: int, channel: int | None) -> None:
        self._rate, self._channel = rate, channel
        self._resampler = self._new()

    def resampled(self, frame: av.AudioFrame) -> list[np.ndarray]:
        """Samples int16 that are ready. MediaError for channels that cannot be mixed."""
        if self._channel is not None:
            frame = _only(frame, min(self._channel, frame.layout.nb_channels - 1))
        with suppress(ValueError, FFmpegError):
            return _samples(self._resampler.resample(frame))
        try:  # the file changes its format here
            ready = self.rest()
            self._resampler = self._new()
            return ready + _samples(self._resampler.resample(frame))
        except (ValueError, FFmpegError):
            what = f"{frame.layout.nb_channels} channels in no layout that FFmpeg can mix"
            raise MediaError("unsupported", what) from None

    def rest(self) -> list[np.ndarray]:
        """The last samples."""
        return _samples(self._resampler.resample(None))

    def _new(self) -> av.AudioResampler:
        return av.AudioResampler("s16", "mono", self._rate, self._rate)


def _samples(frames: list[av.AudioFrame]) -> list[np.ndarray]:
    return [frame.to_ndarray()[0] for frame in frames]


def _only(frame: av.AudioFrame, channel: int) -> av.AudioFrame:
    """One channel of a frame."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    one = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(values[channel : channel + 1]),  # pyright: ignore[reportArgumentType]
        frame.format.planar.name,
        "mono",
    )
    one.sample_rate, one.time_base, one.pts = frame.sample_rate, frame.time_base, frame.pts
    return one


def _level(samples: np.ndarray) -> float:
    """Root mean square of int16 samples, of full scale."""
    values = samples.astype(np.float32) / FULL_SCALE
    return float(np.sqrt(np.dot(values, values) / max(1, len(values))))
