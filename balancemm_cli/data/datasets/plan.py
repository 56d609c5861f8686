"""What a data set module gives to prepare: its samples, where their media lie, and how to store them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from balancemm_cli.data.kinds import Features, Frames, Spec, Tokens, Waveform, kind_of

SPLITS = ("train", "val", "test")

# what a data set writes into its plan's `modalities`
waveform, frames = Waveform.make_spec, Frames.make_spec
features, tokens = Features.make_spec, Tokens.make_spec

COMPUTED = "computed "  # the `source` in the spec of flow that is not stored, before the name of the method


@dataclass(frozen=True, slots=True)
class Clip:
    """The part of a media file that holds one modality of a sample; a subclass reads other forms of data.

    `name` is the path below `root` as the data set writes it, for hashes and rejected.csv; `start` and `end`
    are in seconds, None for the file's own.
    """

    has_file: ClassVar[bool] = True  # else its content lies in the lists

    root: Path
    name: str
    start: float | None = None
    end: float | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.root / self.name

    def size(self) -> int | None:
        """The size of the file in bytes, None where it is missing; it stands for the file's content where the
        same plan is recognised."""
        try:
            return self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def describe(self) -> list[Any]:
        """All that decides what is read, but the file's content, as plain values."""
        return [self.name, self.start, self.end]

    def read(self, spec: Spec, waived: frozenset[str]) -> Any:  # noqa: ANN401 - by kind
        """What a shard holds of it, by its kind. `waived` as in Sample. Raises media.MediaError."""
        return kind_of(spec).decode(self.path, self.start, self.end, waived)


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: a clip for each modality.

    `defect` says what is known to be wrong with it, though it is kept; `waived` names the checks that are
    left out for that reason ("truncated", "silent"). `extras` are the values of the plan's further columns.
    """

    id: str
    split: str
    label: str
    clips: dict[str, Clip]
    defect: str = ""
    waived: frozenset[str] = frozenset()
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All samples of a data set in the order of its lists.

    `modalities` as in the manifest of a prepared set; `classes` in the order of their indices; `protocol`
    says in a few words whose split it is, for every report; `notes` are sentences for the user and the
    manifest; `remedy` says how to get files that are missing. `extras` are further columns of the shards, a
    name and one of store.EXTRAS each. `clip_seconds` is the usual length of a clip, for estimates.
    """

    name: str
    samples: list[Sample]
    classes: list[str]
    modalities: dict[str, Spec]
    protocol: str = ""
    notes: list[str] = field(default_factory=list)
    remedy: str = ""
    extras: dict[str, str] = field(default_factory=dict)
    clip_seconds: float = 10.0
