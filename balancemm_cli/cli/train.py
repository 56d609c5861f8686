"""`bmm train`: one run, or every run of a suite."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balancemm_cli.cli import option_types
from balancemm_cli.cli.cluster import jobs_at_once, refuse_without_slurm, show_status, submit_all
from balancemm_cli.cli.progress import progress_bars, say, stderr
from balancemm_cli.cli.runs_table import RunsTable
from balancemm_cli.cli.without_torch import leave_out_torch
from balancemm_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from balancemm_cli.config.run import RunConfig
    from balancemm_cli.engine.launch import Job, Outcome

MOST_SEEDS = 10_000  # of one range


def train(
    context: typer.Context,
    dataset: option_types.Dataset = "synthetic",
    model: option_types.Model = "concat",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="A method of `bmm list methods`, or several joined by +.")
    ] = "baseline",
    variant: option_types.Variant = "paper",
    recipe: option_types.Recipe = None,
    seeds: Annotated[
        str, typer.Option(metavar="LIST", help="One run for each seed: 0, or several, as 0-4 or 0,2,5.")
    ] = "0",
    set_: option_types.Set = None,
    weights: option_types.Weights = None,
    suite: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Train every run of a suite instead, see `bmm list suites`."),
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
    profile: Annotated[
        bool, typer.Option("--profile", help="Say on stderr where the time of a step goes, of a single run.")
    ] = False,
) -> None:
    """Train a run, or every run of a suite; finished runs are skipped, interrupted ones go on.

    Example: `bmm train --method opm+ogm --seeds 0-2`
    """
    if dry_run or status:
        leave_out_torch()
    elif jobs > 1 and launcher == "local":
        begin_to_import()
    from balancemm_cli.config.run import refuse_unused, resolve, settings_in_words
    from balancemm_cli.config.suites import load_suite
    from balancemm_cli.data.store import open_set
    from balancemm_cli.engine import distributed
    from balancemm_cli.runs.places import Places

    name, optional = None, False
    changes = [*(["pretrained=true"] if weights else []), *(set_ or [])]
    if suite is not None:
        refuse_beside_suite(context)
        name, loaded = load_suite(suite)
        optional = loaded.optional_data
        configs, listing = loaded.configs(set_ or []), loaded.listing(set_ or [])
    else:
        configs = [
            resolve(dataset, model, method, variant, recipe, seed, changes) for seed in parse_seeds(seeds)
        ]
        refuse_unused(configs, changes, "--set")
        listing = [config.title for config in configs]
    if dry_run:
        print("\n".join([*settings_in_words(configs), *listing]))
        say(f"{count(len(listing), 'run')}.")
        return
    file = None
    if weights is not None:
        configs, file = start_from(weights, configs)
    if distributed.launched() > 1 and (len(configs) > 1 or status or launcher == "slurm"):
        raise UsageError(
            "Under torchrun one run is trained at a time. Name one with --seeds, without --suite, --launcher, --status."
        )
    refuse_without_slurm(slurm, launcher)
    if profile and len(configs) > 1:
        raise UsageError(
            f"--profile looks at one run, and these are {len(configs)}. Name one seed and method."
        )
    places = Places(runs)
    content_hash = cache(
        lambda prepared: open_set(prepared).content_hash
    )  # of a data set once, not of each run
    if status:
        known = {config.dataset: existing_folder(config.dataset, data) for config in configs}
        say("\n".join(settings_in_words(configs)))
        prepared = [known[config.dataset] for config in configs]
        show_status(
            [
                (config, "", places.of(config, content_hash(folder)) if folder else None)
                for config, folder in zip(configs, prepared, strict=True)
            ]
        )
        return
    from balancemm_cli.engine.launch import Job, check_jobs

    device = distributed.device_name(device)

    several = len({config.dataset for config in configs}) > 1

    def job(config: "RunConfig", prepared: Path) -> "Job":
        place = places.of(config, content_hash(prepared))
        how = (name, device, threads, loading, profile, file, place)
        return Job(config, prepared, runs, *how, log=log, with_data=several)

    with distributed.joined(device):
        with distributed.first_before_others():
            folders = prepared_folders(dict.fromkeys(config.dataset for config in configs), data, optional)
        work = [job(config, folders[config.dataset]) for config in configs if config.dataset in folders]
        check_jobs(work)
        if not distributed.rank():
            say_where_rho_misleads(work)
        if launcher == "slurm":
            submit_all(work, slurm or [], jobs_at_once(context, jobs))
        elif distributed.rank():
            _train_silently(work[0])
        elif len(work) == 1:
            _train_one(work[0])
        else:
            _train_many(work, jobs)


def begin_to_import() -> None:
    """Start the process that those of the runs are forked from (see engine.launch), so that it imports torch while this
    one does."""
    from multiprocessing import forkserver

    from balancemm_cli.engine import PRELOADED

    forkserver.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


def refuse_beside_suite(context: typer.Context) -> None:
    """UsageError for options that say which run to train, where a suite says it."""
    for option in ("dataset", "model", "method", "variant", "recipe", "seeds"):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"--{option} and --suite exclude each other: the suite says which runs to train."
            )


def say_where_rho_misleads(jobs: "Iterable[Job]") -> None:
    """Name on stderr the models, of jobs whose method goes by ρ, in which it does not tell which modality is ahead."""
    from balancemm_cli.data.store import open_set
    from balancemm_cli.methods import METHODS
    from balancemm_cli.origin import misread

    by_rho = {name for name, method in METHODS.items() if method.by_rho}
    going = [job for job in jobs if by_rho & job.config.methods.keys()]
    counts = {folder: len(open_set(folder).modalities) for folder in {job.data for job in going}}
    uses = ((job.config.model, job.config.model_settings, counts[job.data]) for job in going)
    for sentence in misread(uses):
        say(sentence)


def start_from(weights: str, configs: "list[RunConfig]") -> "tuple[list[RunConfig], Path | None]":
    """The configurations with the SHA-256 of a file of weights, and the file: None where its SHA-256 was given.

    UsageError when no run starts from weights, InputError for a file that is absent.
    """
    from balancemm_cli.models.weights import digest

    if not any(config.settings.pretrained for config in configs):
        raise UsageError("No run here starts from weights: pretrained is false. Leave out --weights.")
    file = None if re.fullmatch("[0-9a-f]{64}", weights) else Path(weights).absolute()
    found = weights if file is None else digest(file)
    return [config.starting_from(found) for config in configs], file


def parse_seeds(text: str) -> list[int]:
    """Seeds from `0`, `0-4` or `0,2,5-7`."""
    seeds: list[int] = []
    for part in text.split(","):
        ends = part.split("-")
        if len(ends) > 2 or not all(re.fullmatch("[0-9]{1,9}", end) for end in ends):
            raise UsageError(f"--seeds takes numbers as in 0, 0-4 or 0,2,5, not '{text}'.")
        first, last = int(ends[0]), int(ends[-1])
        if last < first:
            raise UsageError(f"--seeds '{text}': {part} goes backwards. Write {last}-{first}.")
        if last - first >= MOST_SEEDS:
            raise UsageError(f"--seeds '{text}' names more than {MOST_SEEDS:,} runs. Take fewer.")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds '{text}' holds a seed twice.")
    return seeds


def existing_folder(dataset: str, data: Path) -> Path | None:
    """The folder of a prepared data set, None where it is not prepared yet. UsageError for a name that is none."""
    folder = data / dataset
    if folder.exists():
        return folder
    from balancemm_cli.data.datasets import DATASETS
    from balancemm_cli.data.preparing.prepare import embedded
    from balancemm_cli.data.store import MANIFEST
    from balancemm_cli.extensions import absent

    if dataset not in DATASETS and not embedded(folder):
        prepared = [path.parent.name for path in data.glob(f"*/{MANIFEST}")]
        raise absent("data set", dataset, {*DATASETS, *prepared}, "bmm.datasets")
    return None


def prepared_folder(dataset: str, data: Path) -> Path:
    """The folder of a prepared data set; those that need no files of the user's are prepared when they are absent."""
    from balancemm_cli.data.preparing.prepare import embedded

    if folder := existing_folder(dataset, data):
        return folder
    folder = data / dataset
    request = embedded(folder)
    if request is None:
        raise InputError(f"{folder} is absent. Prepare it first: bmm prepare {dataset}.")
    from balancemm_cli.cli.prepare import run_prepare

    say(f"{folder} is absent: preparing {request.name} first.")
    run_prepare(request)
    return folder


def prepared_folders(datasets: Iterable[str], data: Path, optional: bool) -> dict[str, Path]:
    """The folders of data sets. Where they are `optional`, those that are not prepared, nor can be, are named and left
    out; InputError where none is there."""
    found = {}
    for dataset in datasets:
        try:
            found[dataset] = prepared_folder(dataset, data)
        except InputError as error:
            if not optional:
                raise
            say(f"Left out: {error}")
    if not found:
        raise InputError(f"None of the suite's data sets is prepared under {data}. Prepare one of them.")
    return found


def _train_one(job: "Job") -> None:
    from balancemm_cli.engine.launch import run_job

    folder = job.folder()
    epochs = job.config.settings.epochs
    trained = False
    with progress_bars() as bars:
        total = epochs * folder.data.counts["train"]
        task = bars.add_task(job.name, total=total, unit="samples", note="")

        def show(_: object, event: dict[str, Any]) -> None:
            nonlocal trained
            if "warning" in event:
                say(event["warning"])
                return
            if "samples" in event:
                bars.advance(task, event["samples"])
                return
            trained = True
            epoch = f"epoch {event['epoch'] + 1}/{epochs}"
            bars.update(task, description=epoch, note=f"{job.tested_on} {event['accuracy']['test']:.3f}")
            if not stderr.is_terminal:
                say(
                    f"{epoch}: loss {event['loss']:.3f}, {job.tested_on} accuracy {event['accuracy']['test']:.3f}"
                )

        result = run_job(job, show, say)
    say(f"{job.name}: {result['status'] if trained else 'finished before, skipped'}, {_selected(result)}")
    print(folder.path)


def _train_silently(job: "Job") -> None:
    """The part of a process beside the first, which shows the progress of all."""
    from balancemm_cli.engine.launch import run_job

    run_job(job, lambda *_: None, lambda _: None)


def _train_many(work: "list[Job]", jobs: int) -> None:
    outcomes = train_all(work, jobs)
    for outcome in outcomes:
        if outcome.result:
            print(outcome.job.folder().path)
    refuse_failed(outcomes)


def refuse_failed(outcomes: "list[Outcome]") -> None:
    """InputError where one of many runs failed."""
    failed = [outcome for outcome in outcomes if outcome.exit_status]
    if failed:
        raise InputError(f"{len(failed)} of {len(outcomes)} runs failed; the reasons stand above.")


def train_all(work: "list[Job]", jobs: int) -> "list[Outcome]":
    """Train many runs, so many at a time, with a live table of them and a line for each that ends."""
    from balancemm_cli.engine.launch import run_jobs

    with RunsTable(work) as table:

        def show(job: "Job", event: dict[str, Any]) -> None:
            table.update(job, event)
            if "warning" in event:
                say(f"{job.name}: {event['warning']}")

        def end(outcome: "Outcome") -> None:
            table.end(outcome)
            state = _selected(outcome.result) if outcome.result else f"failed: {outcome.error}"
            if outcome.result and not table.rows[id(outcome.job)].trained:
                state = f"finished before, skipped, {state}"
            say(f"{outcome.job.name}: {state}")

        return run_jobs(work, jobs, show, end)


def _selected(result: dict[str, Any]) -> str:
    last = result["selections"]["last"]
    tested = result.get("tested_on", "test")  # a former version's says nothing
    return f"{tested} accuracy {last['accuracy']:.3f} after {count(result['epochs'], 'epoch')}"


def count(number: int, what: str) -> str:
    """A number of things in words: "1 run", "2 runs"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
