"""Recipes: all settings of a data set under a name, as TOML; read, overridden and checked."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from balancemm_cli.errors import InputError, UsageError, unknown
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import MODELS
from balancemm_cli.resources import benchmarks_folder
from balancemm_cli.settings import Section
from balancemm_cli.tasks import TASKS

Model = TypeVar("Model", bound=BaseModel)

Share = Annotated[float, Field(gt=0, le=1)]

WITHOUT_EFFECT = {"snapshots"}
"""Settings of a recipe that change no number of a run: they are not part of what it is."""


class OptimizerSettings(Section):
    """Optimiser and step schedule."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=1e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)  # of SGD
    weight_decay: float = Field(default=1e-4, ge=0)
    step_epochs: int | None = Field(
        default=None, gt=0
    )  # the learning rate is multiplied by gamma each so many epochs
    gamma: float = Field(default=0.1, gt=0)


class WaveformSettings(Section):
    """How a waveform becomes a log spectrogram [1, n_fft / 2 + 1, T], or Kaldi's mel filter bank [1, 128, 1024],
    for which n_fft, hop, centred and floor mean nothing."""

    features: Literal["log-spectrogram", "fbank"] = "log-spectrogram"
    rate: int | None = Field(default=None, gt=0, le=1_000_000)  # Hz; None: as prepared
    seconds: float = Field(default=3.0, gt=0)  # a shorter clip is repeated, a longer one cut
    n_fft: int = Field(default=512, gt=0)
    hop: int = Field(default=353, gt=0)
    centred: bool = True  # windows centred on their times, the ends padded with zeros
    floor: float = Field(default=1e-7, gt=0)  # log(|STFT| + floor)


class FramesSettings(Section):
    """How stored frames become pictures [C, T, size, size]."""

    resize: tuple[PositiveInt, PositiveInt] | None = None  # height and width, before anything else
    count: int = Field(default=1, gt=0, le=1024)
    # random and segments (one of each of `count` parts) draw in training; in evaluation both are uniform
    # from-start: the first ones, and the last once more for what a clip lacks
    choice: Literal["random", "segments", "uniform", "first-middle-last", "from-start"] = "uniform"
    size: int = Field(default=224, gt=0)
    crop: Literal["random-resized-crop", "resize"] = "random-resized-crop"  # in training
    crop_area: tuple[Share, Share] = (0.08, 1.0)  # of a random crop, as a share of the picture's
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)  # its width over its height
    evaluation: Literal["resize", "centre-crop"] = "resize"
    flip: bool = True
    # of red, green and blue in [0, 1]
    mean: tuple[float, ...] = Field(default=(0.485, 0.456, 0.406), min_length=3, max_length=3)
    std: tuple[PositiveFloat, ...] = Field(default=(0.229, 0.224, 0.225), min_length=3, max_length=3)

    @field_validator("crop_area", "crop_ratio")
    @classmethod
    def _from_low_to_high(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if limits[0] > limits[1]:
            raise ValueError("the first number must not be greater than the second")
        return limits


class SpeedSettings(Section):
    """Switches that change how a step is computed. With all off: float32, eager, as in the published rows."""

    amp: bool = False  # bf16 in the encoders' forward and backward
    channels_last: bool = False
    compile: bool = False  # torch.compile of the encoders


class Recipe(Section):
    """All settings of a run that a recipe names; methods' own settings are under `methods`."""

    task: str = "classification"
    modalities: tuple[str, ...] | None = None  # of those that the data set has; None: all
    encoder: str = "resnet18"  # of pictures and spectrograms
    encoders: dict[str, str] = Field(default_factory=dict)  # by modality or by what it is, see ENCODERS
    pretrained: bool = False  # encoders of pictures and spectrograms start from the file of --weights
    epochs: int = Field(default=100, gt=0)
    snapshots: int = Field(default=0, ge=0)  # keep the weights after each so many epochs, for Fig. 1; 0: none
    batch_size: int = Field(default=64, gt=0)
    # val: a trial of a search, whose numbers are all of validation samples, and which never opens the test split
    tested_on: Literal["test", "val"] = "test"
    optimizer: OptimizerSettings = OptimizerSettings()
    waveform: WaveformSettings = WaveformSettings()
    frames: FramesSettings = FramesSettings()
    discrepancy: DiscrepancySettings = DiscrepancySettings()
    speed: SpeedSettings = SpeedSettings()

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in TASKS:
            raise unknown("task", name, TASKS)
        return name

    @field_validator("modalities")
    @classmethod
    def _whatever_their_order(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Sorted, each once: the order of a run's modalities is that of its data set."""
        if names == ():
            raise ValueError("it takes at least one name")
        return names and tuple(sorted(set(names)))


def recipes(dataset: str) -> dict[str, Path]:
    """The recipes of a data set by name. Another split of it (`crema-d-relearn`) uses the same ones, a data set
    without recipes of its own those of `manifest`."""
    folder = benchmarks_folder() / "recipes"
    known = [path.name for path in folder.iterdir() if f"{dataset}-".startswith(f"{path.name}-")]
    return {
        path.stem: path for path in sorted((folder / max(known, key=len, default="manifest")).glob("*.toml"))
    }


def load_recipe(dataset: str, recipe: str | None) -> tuple[str, dict[str, Any], str]:
    """A recipe's name, content and file, by name, by the path of a TOML file, or (None) the default one."""
    known = recipes(dataset)
    if recipe is None:
        recipe = next(name for name in ("paper", "default", *known) if name in known)
    path = known.get(recipe) or (Path(recipe) if recipe.endswith(".toml") else None)
    if path is None:
        raise unknown("recipe", recipe, known, f" for {dataset}")
    return path.stem, read_toml(path), str(path)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; InputError when it is absent or damaged."""
    try:
        return parse_toml(path.read_bytes(), path)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}. Check the path.") from None


def parse_toml(content: bytes, path: Path) -> dict[str, Any]:
    """The content of a TOML file that was read; InputError when it is damaged."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}. Mend it or restore it.") from None


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` to the key and the value read as TOML, or as plain text where it is no TOML value."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set takes key=value, as in --set opm.q_base=0.4, not '{text}'.")
    if "\n" in value:
        raise UsageError(f"--set {key} takes a value of one line. Give each setting a --set of its own.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except ValueError:  # no TOML, or a number of more digits than Python reads
        return key, value


def describe(settings: Mapping[str, object]) -> str:
    """Settings as a person reads them: "optimizer.lr=0.02, epochs=24"."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def set_key(content: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 - any TOML value
    """Set a dotted key in nested tables, which are made where they are missing."""
    *path, last = key.split(".")
    for part in path:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise UsageError(
                f"Key '{part}' of the recipe is a table, and it is {content!r} there. Mend the recipe."
            )
    content[last] = value


def validate(
    model: type[Model],
    content: Mapping[str, Any],
    source: str,
    prefix: str = "",
    tables: Mapping[str, type[BaseModel]] | None = None,
) -> Model:
    """Check `content` against a section; UsageError names the key, the file and the nearest key: of all that a recipe
    takes or, with `tables`, of the section and of those tables in it."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = (prefix + ".".join(str(part) for part in first["loc"])).removesuffix(".")
        if first["type"] == "extra_forbidden":
            if tables is not None:
                *place, last = map(str, first["loc"])
                taken = tables.get((place or [""])[0], model).model_fields
                raise unknown("key", last, taken, f" (in {source})") from None
            raise unknown("key", key, all_keys(), f" (in {source})") from None
        if first["type"] == "missing" and isinstance(first["loc"][-1], str):
            raise UsageError(f"{source} has no key '{key}'. Add it.") from None
        place = source if tables is not None else f"{source} (or --set)"
        raise UsageError(f"Key '{key}' of {place}: {_in_words(first)}, not {first['input']!r}.") from None


def _in_words(error: Mapping[str, Any]) -> str:
    """What pydantic says of a value, in the words of a recipe."""
    match error["type"]:
        case "too_short" | "too_long":
            count = error["ctx"].get("min_length", error["ctx"].get("max_length"))
            return f"it takes {count} values"
        case "missing":
            return "it takes more values"
        case "tuple_type":
            return 'it takes a list, as [0.5, 0.5, 0.5] or ["audio", "text"]'
        case "model_type" | "model_attributes_type" | "dict_type":
            return "it is a table of settings"
    return error["msg"].removeprefix("Value error, ")


def all_keys() -> list[str]:
    """All dotted keys that a recipe or --set may hold, those of methods and models included."""
    named = [*METHODS.items(), *MODELS.items()]
    return keys(Recipe) + [key for name, kind in named for key in keys(kind.Settings, f"{name}.")]


def is_key(key: str) -> bool:
    """Whether a recipe or --set may hold a dotted key. A modality's encoder has the key `encoders.<modality>`."""
    table, _, modality = key.partition(".")
    return key in all_keys() or (table == "encoders" and bool(modality))


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted keys that a section takes."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
        found += keys(kind, f"{prefix}{name}.") if is_section else [prefix + name]  # pyright: ignore[reportArgumentType]
    return found


def flatten(tree: Mapping[str, object], separator: str = ".") -> dict[str, object]:
    """Nested tables as one, their keys joined: {"train": {"lr": 1}} → {"train.lr": 1}."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{inner}": item for inner, item in flatten(value, separator).items()}
        else:
            flat[key] = value
    return flat
