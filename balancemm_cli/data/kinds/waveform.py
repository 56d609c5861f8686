"""Sound."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from balancemm_cli.data.kinds.base import Numbers, Own, Settings, Spec, Storing
from balancemm_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from balancemm_cli.data.kinds.strips import Strip
    from balancemm_cli.data.loading import NumbersColumn
    from balancemm_cli.data.store import PreparedSplit
    from balancemm_cli.data.transforms import Transform, Waveforms

# Seconds of one processor for each second of a clip: 11 free videos took 0.5 to 3 ms, once 10. On one core of an AMD
# EPYC, by Clip.read.
CLIP_SECOND = 0.0015

WINDOW, STEP = 512, 160  # samples of a drawn spectrogram's window, and at least from one to the next
LOUDNESS = 80  # dB from the loudest point of a drawn spectrogram down to black


class Waveform(Numbers):
    """Mono waveforms, int16 [T], which become log spectrograms or mel filter banks [B, 1, F, T].

    In the manifest `{"kind": "waveform", "rate": Hz}`.
    """

    name = "waveform"
    stored = "int16"
    time_axis: ClassVar[int | None] = 3

    word = "audio"
    storing = frozenset({"rate", "seconds"})
    column_names = frozenset({"audio", "sound", "speech"})
    extensions = frozenset(
        [".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".wma"]
    )

    @staticmethod
    def make_spec(rate: int) -> Spec:
        """A modality of mono int16 waveforms at `rate` Hz."""
        return {"kind": "waveform", "rate": rate}

    @classmethod
    def own(cls, values: list[Own], storing: Storing) -> tuple[Spec, list[str]]:
        """Sound, as `storing` says."""
        return storing.limited(cls.make_spec(storing.rate)), []

    def describe(self) -> str:
        """Its rate."""
        return f"sound, {self.rate:,} Hz"

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.spec["rate"]

    def decode(
        self, path: Path, start: float | None, end: float | None, waived: frozenset[str]
    ) -> "np.ndarray":
        """int16 [T]. MediaError, also for a file that is truncated or silent where that is not waived."""
        from balancemm_cli.data.reading import media

        whole, audible = "truncated" not in waived, "silent" not in waived
        samples = media.read_audio(path, self.rate, start, end, whole, audible)
        return samples[: round(self.spec["seconds"] * self.rate)] if "seconds" in self.spec else samples

    def expected_bytes(self, seconds: float) -> float:
        """Two a sample."""
        return 2 * self.rate * seconds

    def decoding_seconds(self, seconds: float) -> float:
        """See CLIP_SECOND."""
        return CLIP_SECOND * seconds

    def draw(self, value: "np.ndarray") -> "Strip":
        """The log magnitudes, time to the right and frequency upwards."""
        import numpy as np
        from matplotlib import colormaps

        from balancemm_cli.data.kinds.strips import STRIP, Strip, stretched

        samples = np.pad(value.astype(np.float32), (0, max(0, WINDOW - len(value))))
        every = max(STEP, len(samples) // STRIP)
        windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::every]
        power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW), axis=1)) ** 2
        loudness = 10 * np.log10(power / max(power.max(), 1) + 1e-20)
        shares = np.clip(1 + loudness.T[::-1] / LOUDNESS, 0, 1)
        notes = [
            f"{len(value) / self.rate:.2f} s, {self.rate:,} Hz",
            f"upwards: 0 to {self.rate / 2000:g} kHz",
        ]
        return Strip(stretched(colormaps["magma"](shares)), notes)

    @property
    def shape(self) -> int:
        """One channel."""
        return 1

    def transform(self, settings: Settings) -> "Waveforms":
        """A log spectrogram or a filter bank, as WaveformSettings say."""
        from balancemm_cli.data.transforms import LogSpectrogram, MelBank

        self._check(settings)
        if settings.features == "fbank":
            return MelBank(self.rate, settings.rate)
        return LogSpectrogram(
            self.rate, settings.rate, settings.n_fft, settings.hop, settings.centred, settings.floor
        )

    def _check(self, settings: Settings) -> None:
        """UsageError for a window, or a step from one to the next, that is longer than a clip."""
        rate = settings.rate or self.rate
        samples = round(settings.seconds * rate)
        for key in ("n_fft", "hop") if settings.features == "log-spectrogram" else ():
            if getattr(settings, key) > samples:
                raise UsageError(
                    f"waveform.{key}={getattr(settings, key)} is longer than a clip, which has {samples:,} samples "
                    f"({settings.seconds:g} s at {rate:,} Hz). Lower it, or raise waveform.seconds."
                )

    def column(
        self, split: "PreparedSplit", modality: str, settings: Settings, transform: "Transform", repeat: bool
    ) -> "NumbersColumn":
        """The first `seconds` of each waveform; nothing is drawn in their spectrograms, so that these may be held."""
        from balancemm_cli.data.loading import NumbersColumn

        length = round(settings.seconds * self.rate)
        return NumbersColumn(split, modality, (length,), repeat, ready=transform)

    def settings_for_parts(self, count: int) -> dict[str, Any]:
        """So many seconds of a spectrogram; a filter bank is padded to a fixed length."""
        return {"seconds": count, "features": "log-spectrogram"}
