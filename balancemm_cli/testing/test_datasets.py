"""What every data set keeps."""

from pathlib import Path

import pytest

from balancemm_cli.config.run import resolve
from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.errors import BmmError, InputError
from balancemm_cli.testing.entries import assert_listed
from balancemm_cli.testing.small import assert_sentence

of_each_data_set = pytest.mark.parametrize("dataset", DATASETS)


@of_each_data_set
def test_without_media_it_says_in_a_sentence_what_to_get(dataset: str, tmp_path: Path) -> None:
    """A folder that is not there, and an empty one: an InputError that names the path, unless all that the samples
    need lies in the lists; nothing is written."""
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "absent", tmp_path / "empty"):
        try:
            plan = DATASETS[dataset].plan(source, None, False)
        except InputError as error:
            assert source.name in str(error), f"'{error}' does not name {source}"
            assert_sentence(str(error))
        else:
            assert not any(clip.has_file for sample in plan.samples for clip in sample.clips.values())
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@of_each_data_set
def test_lists_that_are_absent_or_of_no_use_are_refused_in_a_sentence(dataset: str, tmp_path: Path) -> None:
    """`--splits` with a folder that has no lists is never ignored."""
    with pytest.raises(BmmError) as refused:
        DATASETS[dataset].plan(tmp_path, tmp_path / "lists", False)
    assert_sentence(str(refused.value))


@of_each_data_set
def test_it_says_how_to_get_its_media(dataset: str) -> None:
    """`HOW_TO_GET` is a sentence or two."""
    assert_sentence(" ".join(DATASETS[dataset].HOW_TO_GET.split()))


@of_each_data_set
def test_it_has_a_recipe(dataset: str) -> None:
    """`bmm train --dataset` works without naming one; a data set without recipes has those of `manifest`."""
    assert resolve(dataset).dataset == dataset


@of_each_data_set
def test_it_is_listed_and_explained(dataset: str) -> None:
    """`bmm list datasets` has it, with its page."""
    assert_listed("datasets", dataset)
