"""The configuration of a run: recipe, then `--set key=value`, checked and resolved."""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from balancemm_cli import models
from balancemm_cli.errors import InputError, UsageError, unknown
from balancemm_cli.extensions import source_identity
from balancemm_cli.methods import METHODS, VARIANTS, Method, method_names
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import MODELS, UNIMODAL
from balancemm_cli.models.encoders import Shape
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.resources import benchmarks_folder
from balancemm_cli.tasks import TASKS, Task

Model = TypeVar("Model", bound=BaseModel)
Share = Annotated[float, Field(gt=0, le=1)]

WITHOUT_EFFECT = {"snapshots"}
"""Settings of a recipe that change no number of a run: they are not part of what it is."""


class Section(BaseModel):
    """Base of the sections of a recipe. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimizerSettings(Section):
    """Optimiser and step schedule."""

    name: Literal["sgd", "adamw"] = "sgd"
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
    rate: int | None = Field(default=None, gt=0)  # Hz; None: as prepared
    seconds: float = Field(default=3.0, gt=0)  # a shorter clip is repeated, a longer one cut
    n_fft: int = Field(default=512, gt=0)
    hop: int = Field(default=353, gt=0)
    centred: bool = True  # windows centred on their times, the ends padded with zeros
    floor: float = Field(default=1e-7, gt=0)  # log(|STFT| + floor)


class FramesSettings(Section):
    """How stored frames become pictures [C, T, size, size]."""

    resize: tuple[PositiveInt, PositiveInt] | None = None  # height and width, before anything else
    count: int = Field(default=1, gt=0)
    # random and segments (one of each of `count` parts) draw in training; in evaluation both are uniform
    # from-start: the first ones, and the last once more for what a clip lacks
    choice: Literal["random", "segments", "uniform", "first-middle-last", "from-start"] = "uniform"
    size: int = Field(default=224, gt=0)
    crop: Literal["random-resized-crop", "resize"] = "random-resized-crop"  # in training
    crop_area: tuple[Share, Share] = (0.08, 1.0)  # of a random crop, as a share of the picture's
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)  # its width over its height
    evaluation: Literal["resize", "centre-crop"] = "resize"
    flip: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

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
    cuda_graphs: bool = False  # a whole step in one launch
    optimizer: Literal["fused", "foreach"] = "fused"


class Recipe(Section):
    """All settings of a run that a recipe names; methods' own settings are under `methods`."""

    task: str = "classification"
    encoder: str = "resnet18"
    pretrained: bool = False  # encoders of pictures and spectrograms start from the file of --weights
    epochs: int = Field(default=100, gt=0)
    snapshots: int = Field(default=0, ge=0)  # keep the weights after each so many epochs, for Fig. 1; 0: none
    batch_size: int = Field(default=64, gt=0)
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


class RunConfig(Section):
    """Everything that decides what a run computes, besides the data."""

    dataset: str
    model: str
    method: str
    variant: Literal["paper", "official"]
    recipe: str
    seed: int
    weights: str | None = None  # SHA-256 of the file that the encoders start from
    settings: Recipe
    model_settings: dict[str, Any] = Field(default_factory=dict)  # resolved settings of the model
    methods: dict[str, dict[str, Any]]  # resolved settings of each method in use
    # of the methods and the model that come from other packages: package, version, SHA-256 of the source
    extensions: dict[str, dict[str, str]] = Field(default_factory=dict)

    @property
    def computed(self) -> dict[str, Any]:
        """What a run computes, besides the seed and the data: the model, the methods, and each setting that is not
        its default.

        The names of data set, recipe and variant are not part of it: where all settings agree, so do the numbers. The
        source of a method or model of another package is.
        A setting that is added with a default changes nothing here; one whose default is changed parts runs of before
        from those of after, since config.toml holds every setting.
        """
        content = {
            "model": self.model,
            "methods": {
                name: _not_default(METHODS[name].Settings, settings)
                for name, settings in self.methods.items()
            },
            "settings": self.settings.model_dump(mode="json", exclude_defaults=True, exclude=WITHOUT_EFFECT),
        }
        if self.model in MODELS:
            content["model_settings"] = _not_default(MODELS[self.model].Settings, self.model_settings)
        given = {"weights": self.weights, "extensions": self.extensions}
        return content | {key: value for key, value in given.items() if value}

    def hash(self, data_hash: str, *, with_seed: bool = True) -> str:
        """SHA-256 over what is computed and the content of the data; without the seed: the settings hash."""
        content = [self.computed, self.seed if with_seed else None, data_hash]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def starting_from(self, weights: str) -> "RunConfig":
        """This configuration with the file of that SHA-256, or as it is where its encoders start from none."""
        return self.model_copy(update={"weights": weights}) if self.settings.pretrained else self

    def check_weights(self) -> None:
        """UsageError for a run that is to start from weights while no file was named."""
        if self.settings.pretrained and self.weights is None:
            raise UsageError(
                f"Recipe {self.recipe} of {self.dataset} starts from weights, and none are given. Name a file of "
                f"{self.settings.encoder} with --weights FILE (ImageNet's: torchvision's IMAGENET1K_V1), or use --set "
                "pretrained=false."
            )

    @property
    def by_key(self) -> dict[str, object]:
        """All that config.toml holds, by the keys that --set takes."""
        content = self.model_dump(mode="json", exclude_none=True)
        settings, of_methods, of_model = (
            content.pop(key) for key in ("settings", "methods", "model_settings")
        )
        return flatten({**content, **settings, **of_methods, self.model: of_model})

    @property
    def title(self) -> str:
        """The run's names and seed on one line."""
        return f"{self.dataset} ({self.recipe}): {self.name}"

    @property
    def name(self) -> str:
        """A short name for progress and messages."""
        return f"{self.model} {self.method} ({self.variant}, seed {self.seed})"

    @property
    def task(self) -> Task:
        """What the labels of this run are."""
        return TASKS[self.settings.task]

    def build_methods(self, modalities: list[str]) -> list[Method]:
        """The methods of the run, in the order in which their hooks are called. UsageError for one that needs a class
        a sample, under a task that has none."""
        for name in self.methods:
            if METHODS[name].needs_classes and not self.task.one_class:
                raise UsageError(
                    f"Method {name} needs one class a sample, and task {self.settings.task} has none. Take another one."
                )
        return [
            METHODS[name](METHODS[name].Settings.model_validate(settings), modalities)
            for name, settings in self.methods.items()
        ]

    def build_network(
        self, shapes: Mapping[str, Shape], classes: Sequence[str], methods: Iterable[Method]
    ) -> Network:
        """The network of the run for inputs of these shapes and a data set's classes, with what its methods attach
        to it.

        The weights depend on the seed alone. UsageError where the model can't take the inputs.
        """
        streams, outputs = RandomStreams(self.seed), self.task.outputs(classes)
        encoder, seed = self.settings.encoder, streams.key("weights")
        network = models.build(self.model, encoder, shapes, outputs, seed, self.model_settings)
        for name, method in zip(self.methods, methods, strict=True):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(streams.key(f"weights/{name}"))
                module = method.attach(network, outputs)
            if module is not None:
                network.extras[name] = module
        return network

    def to_toml(self) -> str:
        """This configuration as TOML; None is left out."""
        content = self.model_dump(exclude_none=True)
        settings = content.pop("settings")
        return tomli_w.dumps({**content, **settings})


def read_config(path: Path) -> RunConfig:
    """The configuration in a config.toml. InputError where the file is absent or damaged; else as `config_of`."""
    return config_of(read_toml(path), str(path))


def config_of(content: Mapping[str, Any], path: str) -> RunConfig:
    """The configuration in what config.toml holds. UsageError where a setting in it is not one of this version, or a
    method or model is not installed."""
    settings = dict(content)
    names = {key: settings.pop(key) for key in RunConfig.model_fields if key in content and key != "settings"}
    config = validate(RunConfig, {**names, "settings": settings}, path)
    for name, of_method in config.methods.items():
        if name not in METHODS:
            raise unknown(f"method (in {path})", name, METHODS)
        validate(METHODS[name].Settings, of_method, path, prefix=f"{name}.")
    _model_settings(config.model, config.model_settings, path)
    return config


def resolve(
    dataset: str,
    model: str = "concat",
    method: str = "baseline",
    variant: str = "paper",
    recipe: str | None = None,
    seed: int = 0,
    overrides: Iterable[str | tuple[str, Any]] = (),
) -> RunConfig:
    """One run's configuration from a recipe (a name or a TOML file) and overrides such as "opm.q_base=0.4".

    Raises UsageError for an unknown name or key (with the nearest one) and for a value out of range, and
    InputError for a recipe file that can't be read.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    dataset = plain_name(dataset)
    names = method_names(method)
    name, content, source = load_recipe(dataset, recipe)
    for override in overrides:
        key, value = parse_override(override) if isinstance(override, str) else override
        if key not in all_keys():
            raise unknown("key", key, all_keys())
        _set(content, key, value)
    of_methods = {part: content.pop(part) for part in METHODS if part in content}
    of_models = {part: content.pop(part) for part in MODELS if part in content}
    settings = validate(Recipe, content, source)
    return RunConfig(
        dataset=dataset,
        model=model,
        method="+".join(names),
        variant=variant,  # pyright: ignore[reportArgumentType] - checked above
        recipe=name,
        seed=seed,
        settings=settings,
        model_settings=_model_settings(model, of_models.get(model, {}), source),
        methods={part: _method_settings(part, variant, of_methods.get(part, {}), source) for part in names},
        extensions=_extensions(model, names),
    )


def _extensions(model: str, methods: Iterable[str]) -> dict[str, dict[str, str]]:
    """Which code of other packages a run uses, by the names of its methods and its model."""
    found = {name: source_identity("bmm.methods", name) for name in methods}
    found[model] = source_identity("bmm.models", model)
    return {name: identity for name, identity in found.items() if identity}


def plain_name(dataset: str) -> str:
    """The name of a data set's folder without a slash behind it. UsageError where it is a path or hidden: what is
    named so would be written outside of the folder of runs."""
    name = dataset.removesuffix("/")
    if not name or name.startswith(".") or any(sign in name for sign in "/\\\0"):
        raise UsageError(
            f"'{dataset}' is not the name of a data set, which is that of a folder under --data. Name the folder that "
            "holds it with --data, and the folder itself with --dataset."
        )
    return name


def _not_default(kind: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not the defaults of their class, as plain values."""
    return kind.model_validate(given).model_dump(mode="json", exclude_defaults=True)


def _method_settings(name: str, variant: str, given: dict[str, Any], source: str) -> dict[str, Any]:
    method = METHODS[name]
    shared = {key: value for key, value in given.items() if key not in VARIANTS}
    content = {**method.VARIANTS[variant], **shared, **given.get(variant, {})}
    return validate(method.Settings, content, source, prefix=f"{name}.").model_dump(exclude_none=True)


def _model_settings(name: str, given: Mapping[str, Any], source: str) -> dict[str, Any]:
    if name not in MODELS:
        if not name.startswith(UNIMODAL):
            raise unknown("model", name, [*MODELS, f"{UNIMODAL}<modality>"])
        return {}
    return validate(MODELS[name].Settings, given, source, prefix=f"{name}.").model_dump(exclude_none=True)


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
        recipe = "paper" if "paper" in known else next(iter(known))
    path = known.get(recipe) or (Path(recipe) if recipe.endswith(".toml") else None)
    if path is None:
        raise unknown(f"recipe for {dataset}", recipe, known)
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
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}. Mend it or restore it.") from None


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` to the key and the value read as TOML, or as plain text where it is no TOML value."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set takes key=value, as in --set opm.q_base=0.4, not '{text}'.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def settings_in_words(configs: Iterable[RunConfig]) -> list[str]:
    """The resolved settings of runs, each set of them once, as lines of a comment: those of a recipe, of a model, of a
    method."""
    lines: dict[str, None] = {}
    for config in configs:
        plain = config.settings.model_dump(mode="json", exclude_none=True)
        found = {f"{config.dataset} ({config.recipe})": plain, f"model {config.model}": config.model_settings}
        found |= {f"method {name} ({config.variant})": settings for name, settings in config.methods.items()}
        for name, settings in found.items():
            if settings:
                lines[f"# {name}: {describe(flatten(settings))}"] = None
    return list(lines)


def describe(settings: Mapping[str, object]) -> str:
    """Settings as a person reads them: "optimizer.lr=0.02, epochs=24"."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _set(content: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 - any TOML value
    *path, last = key.split(".")
    for part in path:
        content = content.setdefault(part, {})
    content[last] = value


def validate(model: type[Model], content: Mapping[str, Any], source: str, prefix: str = "") -> Model:
    """Check `content` against a section; UsageError names the key, the file and the nearest key."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = prefix + ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise unknown(f"key (in {source})", key, all_keys()) from None
        raise UsageError(
            f"Key '{key}' of {source} (or --set): {first['msg']}, not {first['input']!r}."
        ) from None


def all_keys() -> list[str]:
    """All dotted keys that a recipe or --set may hold, those of methods and models included."""
    named = [*METHODS.items(), *MODELS.items()]
    return keys(Recipe) + [key for name, kind in named for key in keys(kind.Settings, f"{name}.")]


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted keys that a section takes."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
        found += keys(kind, f"{prefix}{name}.") if is_section else [prefix + name]  # pyright: ignore[reportArgumentType]
    return found


def settings_by_key(config: str) -> dict[str, object]:
    """The text of a config.toml by dotted keys, those of model and methods by the keys that --set takes.

    ValueError where it is no TOML.
    """
    content = tomllib.loads(config)
    of_methods, of_model = content.pop("methods", {}), content.pop("model_settings", {})
    return flatten({**content, **of_methods, str(content.get("model")): of_model})


def flatten(tree: Mapping[str, object], separator: str = ".") -> dict[str, object]:
    """Nested tables as one, their keys joined: {"train": {"lr": 1}} → {"train.lr": 1}."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{inner}": item for inner, item in flatten(value, separator).items()}
        else:
            flat[key] = value
    return flat
