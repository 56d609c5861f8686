"""Configurations: recipes, overrides, what is refused and how it is said."""

import tomllib
from typing import get_args

import pytest
from pydantic import BaseModel

from balancemm_cli.config.recipe import Recipe, recipes
from balancemm_cli.config.run import read_config, refuse_unused, resolve
from balancemm_cli.config.suites import load_suite
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods import METHODS
from balancemm_cli.models import MODELS
from balancemm_cli.resources import benchmarks_folder, suites


def test_overrides_go_over_the_recipe():
    config = resolve(
        "synthetic", method="opm", overrides=["opm.q_base=0.3", "optimizer.lr=0.5", "encoder=resnet18"]
    )
    assert config.methods["opm"]["q_base"] == 0.3
    assert config.settings.optimizer.lr == 0.5 and config.settings.optimizer.momentum == 0.9
    assert config.settings.encoder == "resnet18"


def test_variant_decides_the_defaults_and_the_recipe_the_rest():
    paper, official = (
        resolve("synthetic", method="ogm", variant=v).methods["ogm"] for v in ("paper", "official")
    )
    assert paper["coefficient"] == "1-alpha*z(rho)" and "last_epoch" not in paper
    assert official["coefficient"] == "1-tanh(alpha*rho)" and official["last_epoch"] == 50
    reply = resolve("crema-d", method="ogm", variant="official", recipe="authors-reply")
    assert reply.methods["ogm"]["alpha"] == 2.6 and reply.methods["ogm"]["last_epoch"] == 80


def test_recipes_of_the_code_of_methods():
    """What the authors' own files say."""
    ogm = resolve("kinetics-sounds", method="ogm", variant="official", recipe="tpami-code").methods["ogm"]
    assert (ogm["alpha"], ogm["first_epoch"], ogm["last_epoch"]) == (0.8, 6, 60)
    blend = resolve("kinetics-sounds", method="g-blending", recipe="tpami-code").methods["g-blending"]
    assert tuple(blend["weights"]) == (0.36, 0.27, 0.37)
    for fusion, alpha, last, epochs in (
        ("concat", 2, 70, 130),
        ("film", 3, 100, 150),
        ("gated", 3, 70, 130),
        ("sum", 5, 100, 130),
    ):
        config = resolve("crema-d", fusion, "pmr", "official", recipe=f"pmr-{fusion}")
        pmr = config.methods["pmr"]
        assert (pmr["alpha"], pmr["last_epoch"], pmr["momentum"]) == (alpha, last, 0)
        assert (pmr["share"], config.settings.epochs) == (0.1, epochs)
    agm = resolve("crema-d", method="agm", variant="official", recipe="agm").methods["agm"]
    assert (agm["cap"], agm["clip"], agm["last_epoch"], agm["zeroed"]) == (10, 1, 19, "inputs")


def test_default_recipe():
    assert resolve("crema-d").recipe == "paper"
    assert resolve("synthetic").recipe == "default"
    assert resolve("my-own-data").recipe == "default"


def test_ucf_101_starts_from_weights_as_the_paper_does():
    for dataset in ("ucf-101", "ucf-101-three", "ucf-101-2"):
        assert resolve(dataset).settings.pretrained
    assert not resolve("crema-d").settings.pretrained


def test_another_split_of_a_data_set_has_its_recipes():
    assert recipes("crema-d-relearn") == recipes("crema-d")
    assert recipes("crema-done") == recipes("manifest") != recipes("crema-d")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "omp"}, "Did you mean 'opm'"),
        ({"recipe": "papr", "dataset": "crema-d"}, "Did you mean 'paper'"),
        ({"variant": "offical"}, "Did you mean 'official'"),
        ({"overrides": ["opm.qbase=0.4"]}, "Did you mean 'opm.q_base'"),
        ({"overrides": ["optimiser.lr=0.4"]}, "Did you mean 'optimizer.lr'"),
        ({"overrides": ["optimizer.lr=fast"]}, "optimizer.lr"),
        ({"overrides": ["optimizer.lr"]}, "--set takes key=value"),
        ({"overrides": ["opm.q_base=1.4"], "method": "opm"}, "opm.q_base"),
        ({"overrides": ["epochs=0"]}, "epochs"),
        ({"overrides": ["optimizer=3"]}, "optimizer"),
        ({"overrides": ["frames.crop_area=[0.5, 0.2]"]}, "the first number must not be greater"),
        ({"overrides": ["frames.crop_area=[0.5, 1.2]"]}, "frames.crop_area.1"),
        ({"overrides": ["frames.std=[0, 1, 1]"]}, "greater than 0"),
        ({"overrides": ["frames.mean=[0.5]"]}, "it takes 3 values"),
        ({"overrides": ["waveform.seconds=inf"]}, "finite number"),
        ({"overrides": ["epochs=true"]}, "a boolean is no number"),
        ({"overrides": ["frames.mean=[true, 0, 0]"]}, "a boolean is no number"),
        ({"overrides": ["epochs=1\nseed=2"]}, "a value of one line"),
        ({"overrides": ["lr=3"]}, "Did you mean 'optimizer.lr'"),
        ({"overrides": ["epochs=none"]}, "epochs"),
        ({"overrides": ["frames.std=nan"]}, "it takes a list"),
        ({"overrides": ["frames.count=1000000"]}, "less than or equal to 1024"),
        ({"overrides": ["waveform.rate=1000000000"]}, "less than or equal to 1000000"),
        ({"method": "OPM"}, "Did you mean 'opm'"),
    ],
)
def test_what_is_wrong_is_named(given, said):
    with pytest.raises(UsageError, match=said.replace(".", r"\.")):
        resolve(**{"dataset": "synthetic", **given})


def test_recipe_files(tmp_path):
    path = tmp_path / "mine.toml"
    with pytest.raises(InputError, match=r"There is no file .*mine\.toml"):
        resolve("synthetic", recipe=str(path))
    path.write_text("epochs = ")
    with pytest.raises(InputError, match=r"mine\.toml is not valid TOML"):
        resolve("synthetic", recipe=str(path))
    path.write_text("[optimizer]\nlearning_rate = 1")
    with pytest.raises(UsageError, match=r"optimizer\.learning_rate"):
        resolve("synthetic", recipe=str(path))
    path.write_text("[opm]\nqbase = 1")  # also where the method is not used
    with pytest.raises(UsageError, match=r"Did you mean 'opm\.q_base'"):
        resolve("synthetic", recipe=str(path))
    path.write_bytes(b"\xef\xbb\xbfepochs = 3\n[opm]\nq_base = 0.1")  # with a byte order mark
    assert resolve("synthetic", recipe=str(path)).settings.epochs == 3


@pytest.mark.parametrize("word", ["none", "null"])
def test_what_may_be_unset_is_unset(word):
    settings = resolve("crema-d", overrides=[f"optimizer.step_epochs={word}"]).settings
    assert resolve("crema-d").settings.optimizer.step_epochs and settings.optimizer.step_epochs is None
    assert resolve("synthetic", method="ogm", overrides=["ogm.noise=none"]).methods["ogm"]["noise"] == "none"


def test_what_may_be_unset_has_no_other_default():
    """config.toml leaves out what is unset, so that a default other than none would come back."""
    sections = [Recipe, *(kind.Settings for kind in [*METHODS.values(), *MODELS.values()])]
    while sections:
        for name, field in sections.pop().model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                sections.append(field.annotation)
            assert field.default is None or type(None) not in get_args(field.annotation), name


@pytest.mark.parametrize("key", ["opm.q_base=0.3", "gated.gate=audio"])
def test_a_setting_that_no_run_uses_is_refused(key):
    config = resolve("synthetic", overrides=[key])
    with pytest.raises(UsageError, match="would change nothing"):
        refuse_unused([config], [key], "--set")
    used = [resolve("synthetic", method="opm"), resolve("synthetic", model="gated")]
    refuse_unused([config, *used], [key, "epochs=3"], "--set")


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_config_toml_gives_the_config_back(tmp_path, variant):
    config = resolve(
        "crema-d", "mlp", "opm+ogm", variant, seed=3, overrides=["discrepancy.bias_split=[0.3, 0.7]"]
    )
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert read_config(tmp_path / "config.toml") == config


def test_hashes():
    config, other = resolve("synthetic", seed=0), resolve("synthetic", seed=1)
    assert config.hash("data") != other.hash("data")
    assert config.hash("data", with_seed=False) == other.hash("data", with_seed=False)
    assert config.hash("data") != config.hash("other data")
    slower = resolve("synthetic", overrides=["optimizer.lr=0.01"])
    assert config.hash("data", with_seed=False) != slower.hash("data", with_seed=False)


def test_every_recipe_and_suite_that_is_shipped_is_valid():
    for folder in (benchmarks_folder() / "recipes").iterdir():
        for recipe in recipes(folder.name):
            for variant in ("paper", "official"):
                resolve(folder.name, method="opm+ogm", variant=variant, recipe=recipe)
    for name in suites():
        assert load_suite(name)[1].configs()


def test_suites(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "mine"\n[[runs]]\ndatasets = ["synthetic"]\nmodels = ["concat", "sum"]\nmethods = ["opm"]\n'
        'seeds = [1, 2]\nsettings = { "opm.q_base" = 0.2 }\n'
    )
    name, suite = load_suite(str(path))
    configs = suite.configs(["epochs=2"])
    assert name == "mine" and [(c.model, c.seed) for c in configs] == [
        ("concat", 1),
        ("sum", 1),
        ("concat", 2),
        ("sum", 2),
    ]
    assert all(c.methods["opm"]["q_base"] == 0.2 and c.settings.epochs == 2 for c in configs)
    with pytest.raises(UsageError, match="Did you mean 'demo'"):
        load_suite("dmeo")
    path.write_text('title = "mine"\n')
    with pytest.raises(UsageError, match=r"mine.toml has no key 'runs'. Add it."):
        load_suite(str(path))
    path.write_text('title = "mine"\n[[runs]]\ndatasets = ["synthetic"]\nmethod = "opm"\n')
    with pytest.raises(UsageError, match="method"):
        load_suite(str(path))


def test_every_recipe_states_its_source():
    for path in (benchmarks_folder() / "recipes").glob("*/*.toml"):
        assert path.read_text().startswith("# ")
        tomllib.loads(path.read_text())
