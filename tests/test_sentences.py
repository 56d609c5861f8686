"""The sentences above a table of runs say what the numbers show, and no more than their intervals allow."""

import pytest
from run_folders import write_demo, write_run

from balancemm_cli.results import tables
from balancemm_cli.results.collection import collect
from balancemm_cli.results.formats import to_html, to_latex, to_markdown
from balancemm_cli.results.references import with_references
from balancemm_cli.results.rows import rows
from balancemm_cli.results.sentences import sentences

STEADY = (0.0, 0.004, -0.003, 0.002, -0.001)
WILD = (0.1, -0.12, 0.05, -0.09, 0.08)


def write(root, reached, seeds=5, other=STEADY, **more):
    """Runs of (model, method) with a mean accuracy each, which seeds move together but for `other`."""
    for shift, ((model, method), mean) in enumerate(reached.items()):
        for seed in range(seeds):
            own = other[(seed + shift) % len(other)] if shift else 0
            write_run(root, method, seed, model=model, accuracy=mean + STEADY[seed] + own, **more)


def said(root):
    groups, _ = with_references(collect([root], "last").groups)
    return sentences(rows(groups, "last"))


def test_methods_that_differ_are_named_with_their_intervals(tmp_path):
    baseline = {("concat", "baseline"): 0.7}
    write(tmp_path, {**baseline, ("concat", "opm"): 0.8, ("concat", "ogm"): 0.6, ("concat", "pmr"): 0.7})
    (gains,) = said(tmp_path)
    assert (
        gains.startswith("Above its baseline is opm (+10.0 [+9.")
        and "; below its baseline is ogm (-10.0 [" in gains
    )
    assert gains.endswith("; of 1 other it can't be told.")


def test_a_gain_within_its_interval_is_none(tmp_path):
    write(
        tmp_path, {("concat", "baseline"): 0.7, ("concat", "opm"): 0.75, ("concat", "ogm"): 0.72}, other=WILD
    )
    assert said(tmp_path) == ["Of 2 gains over a baseline none can be told from chance."]


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_tell_nothing(tmp_path, seeds):
    write(
        tmp_path,
        {("concat", "baseline"): 0.6, ("concat", "opm"): 0.9, ("unimodal-audio", "baseline"): 0.95},
        seeds,
    )
    (gains,) = said(tmp_path)
    assert gains.startswith("No gain can be told from chance")


def alone(audio, visual, joint):
    return {
        **{("concat", "baseline"): joint, ("concat", "opm"): joint + 0.01},
        **{("unimodal-audio", "baseline"): audio, ("unimodal-visual", "baseline"): visual},
    }


def test_a_modality_alone_that_does_better(tmp_path):
    write(tmp_path, alone(0.9, 0.4, 0.7))
    (text,) = [one for one in said(tmp_path) if "jointly" in one]
    assert text.startswith("Audio alone does better than each network trained jointly: +19.")
    assert text.endswith("points over the best of them, opm.")


def test_joint_training_that_does_better(tmp_path):
    write(tmp_path, alone(0.4, 0.3, 0.8))
    (text,) = [one for one in said(tmp_path) if "trained alone:" in one and "Joint" in one]
    assert text.startswith("Joint training by opm does better than whatever was trained alone: +4")


def test_what_the_interval_does_not_decide(tmp_path):
    write(tmp_path, alone(0.71, 0.4, 0.7), other=WILD)
    (text,) = [one for one in said(tmp_path) if "best without" in one]
    assert "can't be told" in text and "does better" not in text


def test_the_interval_is_corrected_for_what_was_looked_at(tmp_path):
    """Against one network the modality alone is better at 95 %; against the eight that were looked at it is not."""
    moved = (0.02, -0.012, 0.012, -0.006, 0.006)
    few, many = tmp_path / "few", tmp_path / "many"
    methods = ("opm", "ogm", "pmr", "agm", "mmpareto", "moddrop", "unimodal-losses")
    for root, some in ((few, ()), (many, methods)):
        for seed, own in enumerate(moved):
            write_run(root, seed=seed, model="unimodal-audio", accuracy=0.72 + own)
            for method in ("baseline", *some):
                write_run(root, method, seed, accuracy=(0.70 if method == "baseline" else 0.5) + seed / 1000)
    assert any("does better than each" in one for one in said(few))
    assert any("can't be told: +" in one for one in said(many))


def test_encoders_worth_less_inside_than_alone(tmp_path):
    """In the fused baseline the sound reaches 0.63 and the pictures 0.56."""
    write(tmp_path, alone(0.62, 0.8, 0.7))
    assert said(tmp_path)[-1].startswith(
        "Worth less inside the fused baseline than trained alone: visual (-24."
    )
    assert "audio" not in said(tmp_path)[-1]


def test_an_encoder_below_itself_alone_within_the_interval_is_not_named(tmp_path):
    """In the fused baseline the sound reaches 0.63 on average, alone 0.65 with seeds far apart."""
    write(tmp_path, {("concat", "baseline"): 0.7, ("unimodal-audio", "baseline"): 0.65}, other=WILD)
    assert not [one for one in said(tmp_path) if "Worth less" in one]


def test_encoders_trained_by_other_settings_are_not_compared(tmp_path):
    write(tmp_path, {("concat", "baseline"): 0.7})
    write(tmp_path, {("unimodal-visual", "baseline"): 0.8}, overrides=("epochs=9",))
    assert not [one for one in said(tmp_path) if "Worth less" in one]


def test_rows_of_other_data_are_not_held_against_each_other(tmp_path):
    write(tmp_path, {("concat", "baseline"): 0.7})
    write(tmp_path, {("unimodal-audio", "baseline"): 0.9}, data="beef" * 16)
    assert said(tmp_path) == []


def test_they_stand_above_each_table_for_people(tmp_path):
    groups = collect([write_demo(tmp_path)], "last").groups
    (table,) = tables.tables(groups, "last")
    assert 1 <= len(table.says) <= 3
    markdown = to_markdown(table)
    assert markdown.index(table.says[0]) < markdown.index("| Model")
    page = to_html([table])
    assert page.index('<p class="says">') < page.index("<table")
    assert rf"\footnotesize {table.says[0][:12]}" in to_latex([table])
    (chosen,) = tables.tables(groups, "last", columns=["accuracy"])
    assert chosen.says == []


def test_what_decides_comes_first(tmp_path):
    for method in ("baseline", "opm"):
        for seed in range(3):
            write_run(tmp_path, method, seed, dataset="crema-d", recipe="paper", accuracy=0.6 + seed / 100)
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    assert table.header[:9] == [
        *("Model", "Method", "Accuracy", "Gain", "Published", "Δ", "Verdict", "Audio", "Visual")
    ]
    assert table.header[-1] == "Rules"
