"""`bmm tune`: settings searched on validation samples, then tested once."""

from collections.abc import Callable
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
    prepared_folders,
    refuse_beside_suite,
    say_where_rho_misleads,
    start_from,
    train_all,
)
from balancemm_cli.cli.without_torch import leave_out_torch
from balancemm_cli.errors import InputError, UsageError, first_of

if TYPE_CHECKING:
    from balancemm_cli.engine.launch import Job, Outcome
    from balancemm_cli.runs.tuning import Asked, Tuning

Queue = Callable[[list["Job"]], None]


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
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Tune every row of a suite instead, with its seeds; see `bmm list suites`.",
        ),
    ] = None,
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
    from balancemm_cli.config.suites import load_suite
    from balancemm_cli.data.store import open_set
    from balancemm_cli.engine import distributed
    from balancemm_cli.runs import tuning
    from balancemm_cli.runs.places import Places
    from balancemm_cli.runs.search import parse_budget

    if distributed.launched() > 1:
        raise UsageError("Under torchrun one run is trained at a time. Call bmm tune without it.")
    refuse_without_slurm(slurm, launcher)
    _check_out(out)
    changes = [*(["pretrained=true"] if weights else []), *(set_ or [])]
    optional = False
    if suite is not None:
        refuse_beside_suite(context)
        _, loaded = load_suite(suite)
        optional, asked = loaded.optional_data, tuning.questions_of_suite(loaded, set_ or [])
    else:
        methods = [name for given in method or ["baseline"] for name in given.split(",")]
        asked = tuning.questions(dataset, model, methods, variant, recipe, parse_seeds(seeds), changes)
    given_budget = parse_budget(budget)
    file = None
    if weights is not None:
        configs, file = start_from(weights, [one.base for one in asked])
        asked = [one.starting_from(str(of.weights)) for one, of in zip(asked, configs, strict=True)]
    if space is None:
        _say_what_has_no_space(asked)
    names = dict.fromkeys(one.question.dataset for one in asked)
    if dry_run or status:
        folders = {name: existing_folder(name, data) for name in names}
    else:
        folders = prepared_folders(names, data, optional)
    sets = {name: open_set(folder) if folder else None for name, folder in folders.items()}
    tuned = [
        tuning.plan(one, given_budget, search, space, Places(runs), sets[one.question.dataset])
        for one in asked
        if one.question.dataset in sets
    ]
    if out and len(searches := [one for of in tuned for one in of.searches]) > 1:
        raise UsageError(f"--out takes the settings of one search, and these are {len(searches)}.")
    if dry_run or status:
        _list_trials(tuned) if dry_run else _show_status(tuned)
        return
    from balancemm_cli.engine.launch import Job, check_jobs
    from balancemm_cli.results.formats import to_markdown
    from balancemm_cli.results.tuned import tuned_table

    machine = {"device": device, "threads": threads, "loading": loading}
    job = partial(Job, runs=runs, weights=file, log=log, with_data=len(names) > 1, **machine)
    asked_for = [job(end, of.data) for of in tuned for one in of.searches for end in one.ends]
    check_jobs(asked_for)
    say_where_rho_misleads(asked_for)
    at_once = jobs_at_once(context, jobs)
    queue = partial(submit_all, given=slurm or [], at_once=at_once) if launcher == "slurm" else None
    if not _search(tuned, job, jobs, queue):
        return
    chosen, faults = _written(tuned)
    if not _test(chosen, job, jobs, queue):
        return
    if out:
        _write_recipe(chosen[0], out)
    print(to_markdown(tuned_table(chosen)), end="")
    if faults := [*faults, *_diverged(chosen)]:
        raise InputError(" ".join(faults))


def _say_what_has_no_space(asked: "list[Asked]") -> None:
    from balancemm_cli.config.spaces import without_space

    for name in dict.fromkeys(name for one in asked for name in without_space(one.base)):
        say(
            f"Method {name} has no search space: only what all methods share is searched. Give its own with --space."
        )


# ---- searching and testing ------------------------------------------------------------------------------------------


def _search(tuned: "list[Tuning]", job: "Callable[..., Job]", jobs: int, queue: Queue | None) -> bool:
    """Train trials until every search is over; where jobs are queued, what can be trained now. Whether the searches are
    over. InputError where a trial fails other than by diverging."""
    while work := _waiting(tuned, job, jobs):
        if queue:
            queue(work)
            say("Run the same command again once these have ended.")
            return False
        _refuse_failed(train_all(work, jobs), "A trial failed, so that nothing can be chosen.")
    return True


def _waiting(tuned: "list[Tuning]", job: "Callable[..., Job]", jobs: int) -> "list[Job]":
    """The trials of all searches that are to be trained next, each run once."""
    waiting = {}
    for one in tuned:
        for search in one.searches:
            for trial, epochs in search.pending(jobs):
                note = f", trial {trial.number}"
                waiting[trial.folder] = job(
                    trial.config, one.data, place=trial.folder, until=epochs, note=note
                )
    return list(waiting.values())


def _refuse_failed(outcomes: "list[Outcome]", what: str) -> None:
    """InputError where one failed other than by diverging."""
    from balancemm_cli.runs.status import read_status

    failed = [
        f"{one.job.name}: {one.error}"
        for one in outcomes
        if one.exit_status and read_status(one.job.folder().path).state != "diverged"
    ]
    if failed:
        raise InputError(f"{what} {first_of(failed)}")


def _written(tuned: "list[Tuning]") -> "tuple[list[Tuning], list[str]]":
    """Write the records of the searches. Those that chose, and why the others could not. InputError if none could."""
    faults = {id(one): one.write() for one in tuned}
    chosen = [one for one in tuned if not faults[id(one)]]
    found = list(filter(None, faults.values()))
    if not chosen:
        raise InputError(" ".join(found))
    return chosen, found


def _test(tuned: "list[Tuning]", job: "Callable[..., Job]", jobs: int, queue: Queue | None) -> bool:
    """Train the chosen settings for each seed; whether all have ended. InputError where one fails other than by
    diverging."""
    from balancemm_cli.runs.status import read_status

    finals = {folder: job(config, one.data, place=folder) for one in tuned for config, folder in one.finals()}
    work = [
        one for folder, one in finals.items() if read_status(folder).state not in ("finished", "diverged")
    ]
    if work and queue:
        queue(work)
        say("Run the same command again once these have ended.")
        return False
    if work:
        _refuse_failed(train_all(work, jobs), "A run with the chosen settings failed.")
    return True


def _diverged(tuned: "list[Tuning]") -> list[str]:
    """A sentence for the runs with chosen settings that diverged, where there are some."""
    from balancemm_cli.runs.status import read_status

    found = {folder: config.title for one in tuned for config, folder in one.finals()}
    names = [name for folder, name in found.items() if read_status(folder).state == "diverged"]
    return [f"Diverged with the chosen settings, and in no mean: {first_of(names)}."] if names else []


# ---- what is said ---------------------------------------------------------------------------------------------------


def _list_trials(tuned: "list[Tuning]") -> None:
    """Print the settings, the spaces and the trials that are known beforehand."""
    from balancemm_cli.config.run import settings_in_words
    from balancemm_cli.results.tuned import in_words, spaces_in_words

    bases = [search.base for one in tuned for search in one.searches]
    print("\n".join(settings_in_words(bases)))
    for text, of in spaces_in_words(tuned).items():
        print(f"# space of {', '.join(of)}: {text}")
    lines = [
        f"{search.base.title}, trial {trial.number}: {in_words(trial.settings)}"
        for one in tuned
        for search in one.searches
        for trial in search.trials
    ]
    if lines:
        print("\n".join(lines))
    say(f"{count(len(lines), 'trial')}, under a budget of {tuned[0].searches[0].budget} each search.")


def _show_status(tuned: "list[Tuning]") -> None:
    """Print how far each trial is, and the runs with the chosen settings of a search that is over."""
    from balancemm_cli.results.tuned import in_words

    rows = []
    for one in tuned:
        waiting = [search for search in one.searches if not search.data_hash or search.pending()]
        for search in one.searches:
            trials = {trial.number: trial for trial in search.trials}
            trials |= {trial.number: trial for trial, _ in search.pending()}
            for number, trial in sorted(trials.items()):
                folder = trial.folder if search.data_hash else None
                rows.append((trial.config, f", trial {number}: {in_words(trial.settings)}", folder))
        if not waiting:
            rows += [(config, ", chosen settings", folder) for config, folder in one.finals()]
    show_status(rows)


def _check_out(path: Path | None) -> None:
    """UsageError where no file can be written there, before anything is trained for it."""
    if path and path.is_dir():
        raise UsageError(f"--out {path} is a folder. Name a file in it.")
    if path and not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}. Make it, or name another file.")


def _write_recipe(tuning: "Tuning", path: Path) -> None:
    """Write the recipe with the chosen settings in it."""
    from balancemm_cli.config.run import recipe_toml

    search = tuning.searches[0]
    question, base = tuning.asked.question, search.base
    said = f"Chosen for {base.method} ({base.variant}) on {base.dataset} by bmm tune: {search.kind}, {search.budget}."
    changes = [*question.changes, *search.chosen.settings.items()]
    text = f"# {said}\n" + recipe_toml(question.dataset, question.recipe, base.variant, changes)
    from balancemm_cli.data.store import atomic_file

    with atomic_file(path) as file:
        file.write(text.encode())
    say(f"Wrote {path}.")
