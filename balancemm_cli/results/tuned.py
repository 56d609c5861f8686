"""What searches for settings chose, and what the runs with these settings reached: the table of `bmm tune`."""

from collections.abc import Mapping, Sequence

from balancemm_cli.config.recipe import describe
from balancemm_cli.config.spaces import describe_space
from balancemm_cli.results.formats import Table
from balancemm_cli.results.statistics import format_summary, summarize
from balancemm_cli.runs.folder import read_result
from balancemm_cli.runs.search import read_search
from balancemm_cli.runs.tuning import Tuning

NAMES = ("Data set", "Recipe", "Model", "Method", "Variant")


def in_words(settings: Mapping[str, object]) -> str:
    """The settings of a trial, as a person reads them."""
    return describe(settings) or "the recipe's own"


def spaces_in_words(tuned: Sequence[Tuning]) -> dict[str, list[str]]:
    """Each space in words, with the methods and data sets that have it: many searches have the same one."""
    found: dict[str, dict[str, None]] = {}
    for one in (one.searches[0] for one in tuned):
        names = found.setdefault(describe_space(one.space, one.base), {})
        names[f"{one.base.method} ({one.base.dataset})"] = None
    return {space: list(names) for space, names in found.items()}


def tuned_table(tuned: Sequence[Tuning]) -> Table:
    """A row a question, whose searches are over and whose runs are trained. Names that all share are the title."""
    of_each = [_names(one) for one in tuned]
    apart = [
        name
        for place, name in enumerate(NAMES)
        if name == "Method" or len({names[place] for names in of_each}) > 1
    ]
    shared = [text for name, text in zip(NAMES, of_each[0], strict=True) if name not in apart]
    header = [*apart, "Search", "Budget", "Trials", "Seconds", "Validation", "Test", "Test − validation"]
    cells = [
        [text for name, text in zip(NAMES, names, strict=True) if name in apart] + _reached(one)
        for names, one in zip(of_each, tuned, strict=True)
    ]
    return Table(", ".join(shared) or "Tuned", [*header, "Chosen settings"], cells, _notes(tuned))


def _names(tuning: Tuning) -> list[str]:
    base = tuning.searches[0].base
    return [base.dataset, base.recipe, base.model, base.method, base.variant]


def _reached(tuning: Tuning) -> list[str]:
    records = [read_search(search.folder) for search in tuning.searches]
    results = [read_result(folder) for _, folder in tuning.finals()]
    accuracies = [
        one["selections"]["last"]["accuracy"] for one in results if one and one["status"] == "finished"
    ]
    chosen = summarize([one.best.accuracy for one in records if one.best.accuracy is not None])
    reached = summarize(accuracies) if accuracies else None
    assert chosen
    return [
        tuning.searches[0].kind,
        str(tuning.searches[0].budget),
        str(sum(len(one.trials) for one in records)),
        f"{sum(trial.seconds for one in records for trial in one.trials):.1f}",
        format_summary(chosen, 100),
        format_summary(reached, 100) if reached else "",
        f"{100 * (reached.mean - chosen.mean):+.1f}" if reached else "",
        "; ".join(in_words(one.best.settings) for one in records),
    ]


def _notes(tuned: Sequence[Tuning]) -> list[str]:
    of_seed = dict.fromkeys(
        "Nested folds: a search for each fold that is tested on."
        if len(one.searches) > 1
        else f"Seed of the search: {one.searches[0].seed}."
        for one in tuned
    )
    return [
        *(f"Space of {', '.join(names)}: {space}." for space, names in spaces_in_words(tuned).items()),
        *of_seed,
        "Chosen by the validation accuracy after the last epoch, then the loss, then the order; trial 0 has the "
        "recipe's settings.",
        "Validation: accuracy of the chosen trial in %. As the best of several it is too high; the column after Test "
        "says by how many points the test accuracy differs.",
        "Test: mean ± sample standard deviation (number of seeds) of the accuracy in % after the last epoch. Trials "
        "read no test sample.",
        f"Records: {', '.join(f'{one.folder}/search.json' for of in tuned for one in of.searches)}.",
    ]
