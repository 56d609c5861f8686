"""`bmm show`: every setting, and in what it differs from the default or the recipe."""

import pytest
from run_folders import write_run

from balancemm_cli.config.recipe import keys
from balancemm_cli.methods import METHODS
from balancemm_cli.models import MODELS


@pytest.mark.parametrize("name", [*METHODS, *MODELS])
def test_every_setting_is_shown(bmm, name):
    status, out, _ = bmm("show", name)
    kind = {**METHODS, **MODELS}[name]
    assert status == 0 and all(f"  {key} = " in out for key in keys(kind.Settings, f"{name}."))


def test_both_variants_of_a_method_with_what_they_change(bmm):
    paper, official = bmm("show", "opm")[1].split("official:")
    assert "opm.execute_probability = 1.0\n" in paper
    assert "opm.execute_probability = 0.7  (default 1.0)" in official


def test_a_recipe(bmm):
    out = bmm("show", "crema-d/authors-reply")[1]
    assert "  encoder = resnet18\n" in out and "optimizer.step_epochs = " in out
    assert "ogm.alpha = 2.6" in out


def test_a_run_with_what_its_recipe_does_not_say(bmm, tmp_path):
    folder = write_run(tmp_path, "opm", overrides=("opm.q_base=0.3",))
    out = bmm("show", folder)[1]
    assert out.startswith("synthetic concat opm paper default, seed 0: finished\n")
    assert "  opm.q_base = 0.3  (recipe 0.5)\n" in out and "  epochs = 20\n" in out


@pytest.mark.parametrize(("name", "said"), [("opn", "'opm'"), ("crema-d/papr", "'crema-d/paper'")])
def test_another_name(bmm, name, said):
    status, _, err = bmm("show", name)
    assert status == 2 and f"Did you mean {said}?" in err
