"""`bmm tune`: settings searched on validation samples, then tested once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from balancemm_cli.cli import option_types
from balancemm_cli.cli.cluster import jobs_at_once, refuse_without_slurm, show_status, submit_all
from balancemm_cli.cli.progress import say
from balancemm_cli.cli.train import (
    begin_to_import,
    count,
    existing_folder,
    parse_seeds,
    prepared_folder,
    refuse_failed,
    start_from,
    train_all,
)
from balancemm_cli.cli.without_torch import leave_out_torch
from balancemm_cli.errors import InputError, UsageError, first_of

if TYPE_CHECKING:
    from balancemm_cli.config.run import RunConfig
    from balancemm_cli.data.store import PreparedSet
    from balancemm_cli.engine.launch import Job, Outcome
    from balancemm_cli.results.formats import Table
    from balancemm_cli.runs.places import Places
    from balancemm_cli.runs.search import Budget, Kind, Question, Search, SearchRecord


def tune(
    context: typer.Context,
    dataset: option_types.Dataset = "synthetic",
    model: option_types.Model = "concat",
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="As of `bmm train`; several get the same budget each. Repeatable.",
            show_default="baseline",
        ),
    ] = None,
    variant: option_types.Variant = "paper",
    recipe: option_types.Recipe = None,
    budget: Annotated[
        str, typer.Option(metavar="N|Ns", help="What a search may train: 20 runs, or 600s of training.")
    ] = "20",
    search: Annotated[
        Literal["quasi-random", "halving"],
        typer.Option(help="Train each trial whole, or twice as many, of which the better half goes on."),
    ] = "quasi-random",
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What is searched, as TOML.", show_default="that of benchmarks/spaces"
        ),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(metavar="LIST", help="One test run for each seed; the search has the first."),
    ] = "0-4",
    set_: option_types.Set = None,
    weights: option_types.Weights = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the chosen settings as a recipe, of one method."),
    ] = None,
    jobs: option_types.Jobs = 1,
    data: option_types.Data = option_types.DATA,
    runs: option_types.Runs = option_types.RUNS,
    device: option_types.Device = "auto",
    threads: option_types.Threads = None,
    loading: option_types.LoadingWay = "auto",
    launcher: option_types.Launcher = "local",
    slurm: option_types.Slurm = None,
    log: option_types.Log = None,
    status: option_types.Status = False,
    dry_run: option_types.DryRun = False,
) -> None:
    """Search settings on validation samples under a budget, then test the chosen ones over the seeds.

    Example: `bmm tune --dataset htad --method baseline,opm --budget 10`
    """
    if dry_run or status:
        leave_out_torch()
    elif launcher == "local":
        begin_to_import()
    from balancemm_cli.data.store import open_set
    from balancemm_cli.engine import distributed
    from balancemm_cli.runs.places import Places
    from balancemm_cli.runs.search import parse_budget

    if distributed.launched() > 1:
        raise UsageError("Under torchrun one run is trained at a time. Call bmm tune without it.")
    refuse_without_slurm(slurm, launcher)
    _check_out(out)
    changes = [*(["pretrained=true"] if weights else []), *(set_ or [])]
    names = [name for given in method or ["baseline"] for name in given.split(",")]
    given_seeds, given_budget = parse_seeds(seeds), parse_budget(budget)
    questions, file = _questions(dataset, model, names, variant, recipe, changes, weights)
    folder = existing_folder(dataset, data) if dry_run or status else prepared_folder(dataset, data)
    prepared = open_set(folder) if folder else None
    plan = partial(_plan, seeds=given_seeds, budget=given_budget, kind=search, space=space)
    tuned = [plan(question, places=Places(runs), prepared=prepared) for question in questions]
    if out and len(searches := [one for of in tuned for one in of.searches]) > 1:
        raise UsageError(f"--out takes the settings of one search, and these are {len(searches)}.")
    if dry_run or status:
        _list_trials(tuned) if dry_run else _show_status(tuned)
        return
    from balancemm_cli.engine.launch import Job, check_jobs

    assert folder is not None
    machine = {"device": device, "threads": threads, "loading": loading}
    job = partial(Job, data=folder, runs=runs, weights=file, log=log, **machine)
    check_jobs([job(end) for of in tuned for one in of.searches for end in one.ends])
    at_once = jobs_at_once(context, jobs)
    queue = partial(submit_all, given=slurm or [], at_once=at_once) if launcher == "slurm" else None
    if _search(tuned, job, jobs, queue) and _test(tuned, job, jobs, queue):
        if out:
            _write_recipe(tuned[0], out)
        _print(_table(tuned))


@dataclass(frozen=True)
class _Tuned:
    """A method, its searches and the seeds that are tested: one search for all, or for each seed's fold its own."""

    question: "Question"
    searches: "list[Search]"
    seeds: list[int]

    def finals(self) -> "Iterable[tuple[RunConfig, Path]]":
        """The runs with the chosen settings and their folders, by seed. The searches are over."""
        for number, seed in enumerate(self.seeds):
            search = self.searches[number % len(self.searches)]
            config = self.question.config(seed, search.chosen.settings)
            yield config, search.places.of(config, search.data_hash)


def _questions(
    dataset: str,
    model: str,
    methods: list[str],
    variant: str,
    recipe: str | None,
    changes: list[str],
    weights: str | None,
) -> "tuple[list[Question], Path | None]":
    """Whose settings are sought, and the file of weights to start from. UsageError for names and settings that are
    none."""
    from dataclasses import replace

    from balancemm_cli.config.recipe import parse_override
    from balancemm_cli.config.run import refuse_unused
    from balancemm_cli.runs.search import Question

    if any(parse_override(change)[0] == "tested_on" for change in changes):
        raise UsageError(
            "--set tested_on would change nothing: trials are tested on val, and the chosen settings on test."
        )
    found = [Question(dataset, model, method, variant, recipe, tuple(changes)) for method in methods]
    configs = [question.config(0, {}) for question in found]
    refuse_unused(configs, changes, "--set")
    if len({config.method for config in configs}) < len(configs):
        raise UsageError(f"--method {','.join(methods)} names a method twice.")
    if weights is None:
        return found, None
    configs, file = start_from(weights, configs)
    return [replace(one, weights=config.weights) for one, config in zip(found, configs, strict=True)], file


def _plan(
    question: "Question",
    seeds: list[int],
    budget: "Budget",
    kind: "Kind",
    space: Path | None,
    places: "Places",
    prepared: "PreparedSet | None",
) -> _Tuned:
    """The searches of a method; of a set that is cut into folds one for each seed, which is tested on a fold of its
    own. InputError for a set without validation samples."""
    from balancemm_cli.config.recipe import parse_override
    from balancemm_cli.config.spaces import space_of, without_space
    from balancemm_cli.runs.search import Search

    base = question.config(seeds[0], {})
    fixed = dict(parse_override(change) for change in question.changes)
    found = space_of(base, space, fixed)
    for name in without_space(base) if space is None else ():
        say(
            f"Method {name} has no search space: only what all methods share is searched. Give its own with --space."
        )
    if prepared:
        prepared.for_run(seeds[0], "val")
    of_searches = seeds if prepared and prepared.folds else seeds[:1]
    data_hash = prepared.content_hash if prepared else ""
    searches = [Search(question, seed, found, budget, kind, places, data_hash) for seed in of_searches]
    return _Tuned(question, searches, seeds)


# ---- searching and testing ------------------------------------------------------------------------------------------


def _search(
    tuned: list[_Tuned], job: "Callable[..., Job]", jobs: int, queue: "Callable[[list[Job]], None] | None"
) -> bool:
    """Train trials until every search is over, and write the records; where jobs are queued, what can be trained now.
    Whether the searches are over. InputError where a trial fails other than by diverging."""
    searches = [search for one in tuned for search in one.searches]
    while work := _waiting(searches, job, jobs):
        if queue:
            queue(work)
            say("Run the same command again once these have ended.")
            return False
        _refuse_failed_trials(train_all(work, jobs))
    for search in searches:
        search.write()
    return True


def _waiting(searches: "list[Search]", job: "Callable[..., Job]", jobs: int) -> "list[Job]":
    """The trials of all searches that are to be trained next, each run once."""
    waiting = {}
    for search in searches:
        for trial, epochs in search.pending(jobs):
            note = f", trial {trial.number}"
            waiting[trial.folder] = job(trial.config, place=trial.folder, until=epochs, note=note)
    return list(waiting.values())


def _refuse_failed_trials(outcomes: "list[Outcome]") -> None:
    from balancemm_cli.runs.status import read_status

    failed = [
        f"{one.job.name}: {one.error}"
        for one in outcomes
        if one.exit_status and read_status(one.job.folder().path).state != "diverged"
    ]
    if failed:
        raise InputError(f"A trial failed, so that nothing can be chosen. {first_of(failed)}")


def _test(
    tuned: list[_Tuned], job: "Callable[..., Job]", jobs: int, queue: "Callable[[list[Job]], None] | None"
) -> bool:
    """Train the chosen settings for each seed; whether all are finished. InputError where one fails."""
    from balancemm_cli.runs.status import read_status

    finals = {folder: config for one in tuned for config, folder in one.finals()}
    work = [
        job(config, place=folder)
        for folder, config in finals.items()
        if read_status(folder).state != "finished"
    ]
    if work and queue:
        queue(work)
        say("Run the same command again once these have ended.")
        return False
    if work:
        refuse_failed(train_all(work, jobs))
    return True


# ---- what is said ---------------------------------------------------------------------------------------------------


def _list_trials(tuned: list[_Tuned]) -> None:
    """Print the settings, the spaces and the trials that are known beforehand."""
    from balancemm_cli.config.run import settings_in_words
    from balancemm_cli.config.spaces import describe_space

    bases = [search.base for one in tuned for search in one.searches]
    print("\n".join(settings_in_words(bases)))
    lines = []
    for one in tuned:
        search = one.searches[0]
        print(f"# space of {search.base.method}: {describe_space(search.space, search.base)}")
        lines += [
            f"{search.base.title}, trial {trial.number}: {_settings(trial.settings)}"
            for search in one.searches
            for trial in search.trials
        ]
    if lines:
        print("\n".join(lines))
    say(f"{count(len(lines), 'trial')}, under a budget of {tuned[0].searches[0].budget} each search.")


def _show_status(tuned: list[_Tuned]) -> None:
    """Print how far each trial is, and the runs with the chosen settings of a search that is over."""
    rows = []
    for one in tuned:
        waiting = [search for search in one.searches if not search.data_hash or search.pending()]
        for search in one.searches:
            trials = {trial.number: trial for trial in search.trials}
            trials |= {trial.number: trial for trial, _ in search.pending()}
            for number, trial in sorted(trials.items()):
                folder = trial.folder if search.data_hash else None
                rows.append((trial.config, f", trial {number}: {_settings(trial.settings)}", folder))
        if not waiting:
            rows += [(config, ", chosen settings", folder) for config, folder in one.finals()]
    show_status(rows)


def _settings(settings: dict[str, object]) -> str:
    from balancemm_cli.config.recipe import describe

    return describe(settings) or "the recipe's own"


def _table(tuned: list[_Tuned]) -> "Table":
    """What was searched, chosen and reached, a row a method."""
    from balancemm_cli.config.spaces import describe_space
    from balancemm_cli.results.formats import Table

    first = tuned[0].searches[0]
    header = ["Method", "Search", "Budget", "Trials", "Seconds", "Validation", "Test", "Test − validation"]
    spaces = [
        f"Space of {search.base.method}: {describe_space(search.space, search.base)}."
        for search in (one.searches[0] for one in tuned)
    ]
    nested = len(tuned[0].searches) > 1
    which = (
        "Nested folds: a search for each fold that is tested on"
        if nested
        else f"Seed of the search: {first.seed}"
    )
    notes = [
        *spaces,
        f"{which}. Chosen by the validation accuracy after the last epoch, then the loss, then the order; trial 0 has "
        "the recipe's settings.",
        "Validation: accuracy of the chosen trial in %. As the best of several it is too high; the last column says by "
        "how many points the test accuracy differs.",
        "Test: mean ± sample standard deviation (number of seeds) of the accuracy in % after the last epoch. Trials "
        "read no test sample.",
        *(f"Record of {one.base.method}: {one.folder}/search.json." for of in tuned for one in of.searches),
    ]
    title = f"{first.base.dataset} ({first.base.recipe}), {first.base.model}, {first.base.variant}"
    return Table(title, [*header, "Chosen settings"], [_row(one) for one in tuned], notes)


def _row(tuned: _Tuned) -> list[str]:
    from balancemm_cli.results.statistics import format_summary, summarize
    from balancemm_cli.runs.folder import read_result
    from balancemm_cli.runs.search import read_search

    records: Sequence[SearchRecord] = [read_search(search.folder) for search in tuned.searches]
    results = [read_result(folder) for _, folder in tuned.finals()]
    reached = summarize([one["selections"]["last"]["accuracy"] for one in results if one])
    chosen = summarize([one.best.accuracy for one in records if one.best.accuracy is not None])
    assert reached and chosen
    return [
        tuned.searches[0].base.method,
        tuned.searches[0].kind,
        str(tuned.searches[0].budget),
        str(sum(len(one.trials) for one in records)),
        f"{sum(trial.seconds for one in records for trial in one.trials):.1f}",
        format_summary(chosen, 100),
        format_summary(reached, 100),
        f"{100 * (reached.mean - chosen.mean):+.1f}",
        "; ".join(_settings(one.best.settings) for one in records),
    ]


def _print(table: "Table") -> None:
    from balancemm_cli.results.formats import to_markdown

    print(to_markdown(table), end="")


def _check_out(path: Path | None) -> None:
    """UsageError where no file can be written there, before anything is trained for it."""
    if path and path.is_dir():
        raise UsageError(f"--out {path} is a folder. Name a file in it.")
    if path and not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}. Make it, or name another file.")


def _write_recipe(tuned: _Tuned, path: Path) -> None:
    """Write the recipe with the chosen settings in it."""
    from balancemm_cli.config.run import recipe_toml

    search = tuned.searches[0]
    question, base = tuned.question, search.base
    said = f"Chosen for {base.method} ({base.variant}) on {base.dataset} by bmm tune: {search.kind}, {search.budget}."
    changes = [*question.changes, *search.chosen.settings.items()]
    text = f"# {said}\n" + recipe_toml(question.dataset, question.recipe, base.variant, changes)
    from balancemm_cli.data.store import atomic_file

    with atomic_file(path) as file:
        file.write(text.encode())
    say(f"Wrote {path}.")
