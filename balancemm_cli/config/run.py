"""The configuration of a run: a recipe, then `--set key=value`, checked and resolved."""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
import torch
from pydantic import (
    BaseModel,
    Field,
)

from balancemm_cli import models
from balancemm_cli.config.recipe import (
    WITHOUT_EFFECT,
    Recipe,
    all_keys,
    describe,
    flatten,
    is_key,
    load_recipe,
    parse_override,
    read_toml,
    set_key,
    validate,
)
from balancemm_cli.errors import InputError, UsageError, unknown
from balancemm_cli.extensions import absent, source_identity
from balancemm_cli.methods import METHODS, VARIANTS, Method, method_names
from balancemm_cli.models import MODELS, UNIMODAL
from balancemm_cli.models.encoders import ENCODERS, Shape
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.settings import Section
from balancemm_cli.tasks import TASKS, Task

# The first digits of the SHA-256 of torchvision's IMAGENET1K_V1 files, which their names end in.
IMAGENET = {"resnet18": "f37072fd", "resnet34": "b627a593", "resnet50": "0676ba61"}

# Switches of section `speed` of former versions, as they are off.
FORMER = {"cuda_graphs": False, "optimizer": "fused"}


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
    # of the methods and the model that computed something else before: the number of what they compute
    revisions: dict[str, int] = Field(default_factory=dict)

    @property
    def computed(self) -> dict[str, Any]:
        """What a run computes, besides the seed and the data: the model, the methods, and each setting that is not
        its default.

        The names of data set, recipe and variant are not part of it: where all settings agree, so do the numbers. The
        source of a method or model of another package is, and so is the revision of ours, which parts runs of before a
        change from those of after it.
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
        given = {"weights": self.weights, "extensions": self.extensions, "revisions": self.revisions}
        return content | {key: value for key, value in given.items() if value}

    def hash(self, data_hash: str, *, with_seed: bool = True) -> str:
        """SHA-256 over what is computed and the content of the data; without the seed: the settings hash."""
        content = [self.computed, self.seed if with_seed else None, data_hash]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def starting_from(self, weights: str) -> "RunConfig":
        """This configuration with the file of that SHA-256, or as it is where its encoders start from none."""
        return self.model_copy(update={"weights": weights}) if self.settings.pretrained else self

    @property
    def starts_from_imagenet(self) -> bool:
        """Whether the encoders start from torchvision's own file of ImageNet weights, by its SHA-256."""
        digits = [IMAGENET[name] for name in self._of_pictures if name in IMAGENET]
        return (self.weights or "").startswith(tuple(digits))

    @property
    def _of_pictures(self) -> list[str]:
        """The encoders of pictures and spectrograms that the settings name."""
        named = self.settings.encoders
        default = named.get("pictures", self.settings.encoder)
        return list(dict.fromkeys([default, *(one for one in named.values() if one in ENCODERS["pictures"])]))

    def check_weights(self) -> None:
        """UsageError for a run that is to start from weights while no file was named."""
        if self.settings.pretrained and self.weights is None:
            raise UsageError(
                f"Recipe {self.recipe} of {self.dataset} starts from weights, and none are given. Name a file of "
                f"{' or '.join(self._of_pictures)} with --weights FILE (ImageNet's: torchvision's IMAGENET1K_V1), or "
                "use --set pretrained=false."
            )

    def check_sources(self, when: str, remedy: str) -> None:
        """InputError where a method or model computes something else than it did `when` the run, for instance, "was
        planned": its source in another package has changed, or its revision in this one."""
        now = _extensions(self.model, self.methods)
        for name, then in self.extensions.items():
            if name not in now or now[name] != then:
                raise InputError(
                    f"The source of '{name}' ({then['package']} {then['version']}) has changed since this run {when}. "
                    f"{remedy}"
                )
        current = revisions(self.model, self.methods)
        for name in sorted({*current, *self.revisions}):
            before, after = self.revisions.get(name, 1), current.get(name, 1)
            if before != after:
                raise InputError(
                    f"'{name}' computes something else than when this run {when}: revision {after} here, {before} "
                    f"there. {remedy}"
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

    def modalities(self, available: Sequence[str]) -> list[str]:
        """The modalities that the run uses, out of those of its data set and in that order.

        UsageError where settings or model name one that is none of them, InputError for a model of another package that
        is of no use.
        """
        for name in self.settings.modalities or ():
            if name not in available:
                raise unknown("modality", name, available, " (modalities)")
        for name in self.settings.encoders:
            if name not in (*available, *ENCODERS):
                raise unknown("modality", name, [*available, *ENCODERS], f" (encoders.{name})")
        given = self.settings.modalities or available
        alone = self.model.removeprefix(UNIMODAL)
        if self.model not in MODELS and alone in available and alone not in given:
            raise UsageError(
                f"Model {self.model} is that of '{alone}', which is not among modalities={list(given)}. Name it "
                "there too."
            )
        return models.modalities_of(self.model, [name for name in available if name in given])

    def build_methods(self, modalities: list[str]) -> list[Method]:
        """The methods of the run, in the order in which their hooks are called. UsageError for one that needs a class
        a sample, under a task that has none, and for two that go backward twice or let modalities learn in turn."""
        backward = [name for name in self.methods if METHODS[name].two_backwards]
        if len(backward) > 1:
            raise UsageError(
                f"Methods {' and '.join(backward)} each go backward in a way of their own. Take one of them."
            )
        for name in self.methods:
            if METHODS[name].needs_classes and not self.task.one_class:
                raise UsageError(
                    f"Method {name} needs one class per sample, and task {self.settings.task} has none. Take another."
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
        encoder, encoders, seed = self.settings.encoder, self.settings.encoders, streams.key("weights")
        network = models.build(self.model, encoder, shapes, outputs, seed, self.model_settings, encoders)
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
    settings = without_former(content)
    names = {key: settings.pop(key) for key in RunConfig.model_fields if key in content and key != "settings"}
    config = validate(RunConfig, {**names, "settings": settings}, path)
    for name, of_method in config.methods.items():
        if name not in METHODS:
            raise absent(f"method (in {path})", name, METHODS, "bmm.methods")
        validate(METHODS[name].Settings, of_method, path, prefix=f"{name}.")
    _model_settings(config.model, config.model_settings, path)
    return config


def without_former(content: Mapping[str, Any]) -> dict[str, Any]:
    """What config.toml holds, without the switches that only former versions have, where they were off."""
    speed = content.get("speed")
    if not isinstance(speed, dict):
        return dict(content)
    return {**content, "speed": {key: value for key, value in speed.items() if FORMER.get(key) != value}}


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
    override(content, variant, overrides)
    of_methods = {part: content.pop(part) for part in METHODS if part in content}
    of_models = {part: content.pop(part) for part in MODELS if part in content}
    settings = validate(Recipe, content, source)
    # also of methods and models that this run does not use, where a misspelt key is one all the same
    methods = {
        part: _method_settings(part, variant, of_methods.get(part, {}), source)
        for part in dict.fromkeys([*of_methods, *names])
    }
    of_model = {
        part: _model_settings(part, of_models.get(part, {}), source)
        for part in dict.fromkeys([*of_models, model])
    }
    return RunConfig(
        dataset=dataset,
        model=model,
        method="+".join(names),
        variant=variant,  # pyright: ignore[reportArgumentType] - checked above
        recipe=name,
        seed=seed,
        settings=settings,
        model_settings=of_model[model],
        methods={part: methods[part] for part in names},
        extensions=_extensions(model, names),
        revisions=revisions(model, names),
    )


def override(content: dict[str, Any], variant: str, overrides: Iterable[str | tuple[str, Any]]) -> None:
    """Change settings in what a recipe holds. UsageError for a key that there is not.

    A method's go to its table of the variant, which comes before what both variants share.
    """
    for one in overrides:
        key, value = parse_override(one) if isinstance(one, str) else one
        if not is_key(key):
            raise unknown("key", key, all_keys())
        owner, _, setting = key.partition(".")
        set_key(content, f"{owner}.{variant}.{setting}" if owner in METHODS else key, value)


def recipe_toml(
    dataset: str, recipe: str | None, variant: str, overrides: Iterable[str | tuple[str, Any]]
) -> str:
    """A recipe with overrides in it, as TOML that --recipe takes."""
    _, content, _ = load_recipe(dataset, recipe)
    override(content, variant, overrides)
    return tomli_w.dumps(content)


def not_installed(model: str, method: str) -> list[str]:
    """The model and the methods of a run that are not known here, as those of a package that is not installed."""
    lacking = [f"method {name}" for name in method.split("+") if name not in METHODS]
    return lacking if model in MODELS or model.startswith(UNIMODAL) else [f"model {model}", *lacking]


def refuse_unused(
    configs: Iterable[RunConfig], overrides: Iterable[str | tuple[str, Any]], source: str
) -> None:
    """UsageError for a setting of a method or a model that none of the runs has."""
    used = {name for config in configs for name in (*config.methods, config.model)}
    for override in overrides:
        key, _ = parse_override(override) if isinstance(override, str) else override
        owner = key.partition(".")[0]
        kind = "method" if owner in METHODS else "model" if owner in MODELS else None
        if kind and owner not in used:
            raise UsageError(f"{source} {key} would change nothing: no run has {kind} {owner}. Leave it out.")


def revisions(model: str, methods: Iterable[str]) -> dict[str, int]:
    """Of the methods of a run and its model: those that are no longer what they were at first."""
    used = {name: METHODS[name].revision for name in methods}
    if model in MODELS:
        used[model] = MODELS[model].revision
    return {name: revision for name, revision in used.items() if revision > 1}


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
    if not isinstance(given, dict) or not all(isinstance(given.get(key, {}), dict) for key in VARIANTS):
        raise UsageError(f"Key '{name}' of {source} must be a table of settings. Mend the recipe.")
    shared = {key: value for key, value in given.items() if key not in VARIANTS}
    content = {**method.VARIANTS[variant], **shared, **given.get(variant, {})}
    return validate(method.Settings, content, source, prefix=f"{name}.").model_dump(exclude_none=True)


def _model_settings(name: str, given: Mapping[str, Any], source: str) -> dict[str, Any]:
    if name not in MODELS:
        if not name.startswith(UNIMODAL) or any(sign in name for sign in "/\\\0"):
            raise absent("model", name, [*MODELS, f"{UNIMODAL}<modality>"], "bmm.models")
        return {}
    return validate(MODELS[name].Settings, given, source, prefix=f"{name}.").model_dump(exclude_none=True)


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


def settings_by_key(config: str) -> dict[str, object]:
    """The text of a config.toml by dotted keys, those of model and methods by the keys that --set takes.

    ValueError where it is no TOML.
    """
    content = without_former(tomllib.loads(config))
    of_methods, of_model = content.pop("methods", {}), content.pop("model_settings", {})
    return flatten({**content, **of_methods, str(content.get("model")): of_model})
