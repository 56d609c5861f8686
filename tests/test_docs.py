"""Every command that README and docs show works, and everything there is has a page."""

import glob
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from media_files import tone, write_csv, write_video, write_wav
from run_folders import write_run
from small_sets import COUNTS

from balancemm_cli.cli import app, main
from balancemm_cli.config.suites import RunGroup
from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.data.made import synthetic_modalities
from balancemm_cli.methods import METHODS
from balancemm_cli.models import MODELS
from balancemm_cli.models.encoders import ENCODERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Their media can't be had here; the command says where they are.
NEEDS_MEDIA = {name for name, dataset in DATASETS.items() if dataset.PUBLISHED and not dataset.EMBEDDED}
# What the program says where they, or what was trained on them, are absent.
ABSENT = {
    "prepare": "data/raw/",
    "train": "Prepare it first",
    "report": "There are no runs |There is no folder runs/|No finished run to report: runs whose settings",
    "eval": "There is no folder ",
}
OTHER_TABLES = ("sensors", "unsplit", "pets", "collar")  # beside my.csv, which a folder has alone
ORDER = [
    "prepare",
    "train",
    "tune",
    "eval",
    "report",
    "list",
    "show",
    "doctor",
]  # each needs what comes before it


def shown_commands(pages=PAGES):
    found = (line for page in pages for line in re.findall(r"^(?: {4})?(bmm .*)$", page.read_text(), re.M))
    lines = [line for line in found if "[" not in line]  # else a synopsis
    return sorted(dict.fromkeys(lines), key=lambda line: ORDER.index(line.split()[1]))


def of_methods_and_models():
    """The trainings that are shown on the page of a method or model alone, whose contract trains it."""
    of_one = [page for page in PAGES if page.parent.name in ("methods", "models")]
    others = shown_commands([page for page in PAGES if page not in of_one])
    return {line for line in shown_commands(of_one) if line.startswith("bmm train ")}.difference(others)


def needs_media(words):
    """Whether a command needs the paper's data: it names one, or a table, and does more than list its runs."""
    named = NEEDS_MEDIA.intersection(words) or any(
        re.fullmatch(r"(table|figure)-\d+|laptop|(runs/)?finding-[1-8](/.*)?", word) for word in words
    )
    return bool(named) and (words[1] == "prepare" or not {"--dry-run", "--status"}.intersection(words))


def matched(pattern):
    """What the shell makes of a word; of many runs the baseline's."""
    found = sorted(glob.glob(pattern)) or [pattern]
    return [path for path in found if "/baseline-" in path] or found


def configs_of_one_seed(group, *given, configs=RunGroup.configs):
    """In place of RunGroup.configs."""
    return configs(group.model_copy(update={"seeds": group.seeds[:1]}), *given)


def write_my_data(folder):
    rows = []
    of_own = [("train", "low"), ("train", "high"), ("test", "low"), ("test", "high")]
    for number, (split, label) in enumerate(6 * of_own):
        frequency = 300 if label == "low" else 2000
        write_wav(folder / f"{number}.wav", tone(1.0, frequency=frequency))
        write_video(folder / f"{number}.mkv", [10 * number + 9] * 5)
        rows.append(f"{number},{label},{split},{number}.wav,{number}.mkv")
    write_csv(folder / "my.csv", "id,label,split,audio,video", *rows)
    ids = range(len(rows))
    write_csv(folder / "sensors.csv", "id,x,y", *(f"{number},{number},1" for number in ids))
    np.save(folder / "embeddings.npy", np.random.default_rng(0).normal(size=(len(rows), 3)))
    (folder / "embeddings.txt").write_text("".join(f"{number}\n" for number in ids))
    write_csv(
        folder / "unsplit.csv",
        "id,label,text,v[0]",
        *(f"{number},{'ab'[number % 2]},word {number % 3},{number}" for number in range(40)),
    )
    write_pets(folder)
    write_board(folder)


def write_board(folder):
    """The suite of docs/is-my-method-better.md, with a method of ours for that of another package, on one set and for
    one seed."""
    page = (ROOT / "docs" / "is-my-method-better.md").read_text()
    (suite,) = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    assert "unimodal-m3" in suite
    groups = suite.replace("fixed-drop", "moddrop").replace('"htad", ', "").split("\n\n")
    kept = [group.replace("[0, 1, 2, 3, 4]", "[0]") for group in groups if '"htad"' not in group]
    (folder / "my-board.toml").write_text("\n\n".join(kept))


def write_pets(folder):
    """What docs/own-data.md begins with, with the header that it shows."""
    page = (ROOT / "docs" / "own-data.md").read_text()
    header, collar = re.findall(r"^id,.*$", page, re.M)
    (folder / "sounds").mkdir()
    for number in range(40):
        write_wav(folder / "sounds" / f"{number}.wav", tone(0.5, frequency=300 + 100 * number))
    label = ["calm", "wild"]
    write_csv(
        folder / "pets.csv",
        header,
        *(f"pet-{n},{label[n % 2]},house-{n % 20},sounds/{n}.wav,remark {n % 3},{n},1" for n in range(40)),
    )
    write_csv(folder / "collar.csv", collar, *(f"pet-{n},{n},2,3" for n in range(40)))


@pytest.mark.parametrize("at_length", [False, pytest.param(True, marks=pytest.mark.long)])
def test_every_command_shown_works(tmp_path, monkeypatch, capsys, at_length):
    """As typed, but on few samples, for one epoch, by a small encoder and one seed, and on the baseline alone where
    a pattern stands for runs. Unless at length, what a method's or model's own page trains is planned alone."""
    planned = set() if at_length else of_methods_and_models()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunGroup, "configs", configs_of_one_seed)
    for name, counts in COUNTS.items():
        DATASETS[name].make(tmp_path / "data" / "raw" / name, 1, counts=counts)
    monkeypatch.setattr(synthetic_modalities, "COUNTS", COUNTS["synthetic"])
    write_my_data(tmp_path)
    others = shutil.ignore_patterns("data", "folder", *(f"{name}.csv" for name in OTHER_TABLES))
    shutil.copytree(tmp_path, tmp_path / "folder", ignore=others)
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(
        b"stands for the weights, which nothing here comes to read"
    )
    for command in shown_commands():
        words = [word for part in shlex.split(command, comments=True) for word in matched(part)]
        if ">" in words:  # the shell's
            words = words[: words.index(">")]
        if words[1] == "prepare" and "--workers" not in words:
            words += ["--workers", "1"]
        if words[1] in ("train", "tune") and any(re.match("laptop|finding-", word) for word in words):
            words += [
                "--dry-run"
            ]  # it would train hundreds of runs on htad; test_findings.py does on a tiny set
        if command in planned:
            words += ["--dry-run"]
        if words[1] == "tune":
            words += ["--budget", "1", "--set", "epochs=1", "--device", "cpu"]
            words += [] if "--suite" in words else ["--seeds", "0"]
            words += ["--dry-run"] if "leaderboard" in words else []
        if words[1] == "train":
            words += ["--set", "epochs=1", "--device", "cpu"]
            words = [re.sub(r"^0-\d$", "0", word) for word in words]
            small = "pets" in words or not {"--model", "--suite"}.intersection(words)
            words += ["--set", "encoder=small"] if small else []
            words += ["--set", "waveform.n_fft=64", "--set", "frames.size=16"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        if "--check" in words and needs_media(words):  # what was not run is not reproduced
            assert ended.value.code == 4 and "were not reproduced" in err, f"{command}: {err}"
        elif needs_media(words):
            assert ended.value.code == 3 and re.search(ABSENT[words[1]], err), f"{command}: {err}"
        else:
            # one epoch of one seed reproduces nothing, and keeps not all rules
            allowed = (0, None, 4) if {"--check", "--strict"}.intersection(words) else (0, None)
            assert ended.value.code in allowed, f"{command}: {err}"
            assert out.strip(), command


def test_the_commands_are_found():
    kinds = {command.split()[1] for command in shown_commands()}
    assert kinds >= {"prepare", "train", "tune", "eval", "report", "list"}


def test_everything_has_a_page():
    for kind, names in (("datasets", DATASETS), ("methods", METHODS), ("models", MODELS)):
        for name in names:
            assert (ROOT / "docs" / kind / f"{name}.md").is_file(), name
    encoders = (ROOT / "docs" / "encoders.md").read_text()
    assert all(f"`{name}`" in encoders for of_sort in ENCODERS.values() for name in of_sort)
    for command in app.registered_commands:
        page = ROOT / "docs" / "commands" / f"{command.name}.md"
        assert page.is_file(), command.name


def test_no_two_rows_of_a_shown_table_are_the_same():
    """Rows of other models or methods that agree in every digit compare nothing."""
    text = (ROOT / "benchmarks" / "README.md").read_text()
    tables = [[line for line in block.splitlines() if line.startswith("| ")] for block in text.split("###")]
    numbers = [[tuple(row.split("|")[3:]) for row in rows[1:]] for rows in tables]
    assert sum(map(len, numbers)) > 30
    assert all(len({*rows}) == len(rows) for rows in numbers)


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize(("accuracies", "status"), [((0.97, 0.985, 0.98), 0), ((0.93, 0.945, 0.94), 4)])
def test_a_claim_in_a_repository_of_its_own_is_checked_as_shown(
    tmp_path, monkeypatch, capsys, accuracies, status
):
    """The suite plans the runs that its workflow trains, and the check passes for numbers in the ranges alone."""
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / "ci.md").read_text(), re.M | re.S))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "claim.toml").write_text(blocks["toml"])
    for seed, of_baseline in enumerate((0.90, 0.905, 0.90)):
        write_run(tmp_path / "runs", "baseline", seed, accuracy=of_baseline)
        write_run(tmp_path / "runs", "opm", seed, accuracy=accuracies[seed])
    train, report = re.findall(r"- run: (bmm .*)$", blocks["yaml"], re.M)
    monkeypatch.setattr(sys, "argv", [*train.split(), "--status"])
    with pytest.raises(SystemExit):
        main()
    assert len(re.findall(r"^waiting .* concat (baseline|opm) ", capsys.readouterr().out, re.M)) == 6
    monkeypatch.setattr(sys, "argv", report.split())
    with pytest.raises(SystemExit) as ended:
        main()
    said = re.findall(r"^(\w+) +synthetic concat opm (\w+):", capsys.readouterr().out, re.M)
    words = {metric: word for word, metric in said}
    expected = {0: "reproduced", 4: "outside"}[status]
    assert (ended.value.code or 0, words["accuracy"]) == (status, expected)
    assert words["gain"] == ("reproduced" if status == 0 else "undecided")
    assert (tmp_path / "check" / "check.xml").is_file()
