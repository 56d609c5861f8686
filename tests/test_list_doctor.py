import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from media_files import tone, write_csv, write_wav

from balancemm_cli.data.datasets import htad
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import InputError, UsageError

ROOT = Path(__file__).parents[1]

# In balancemm_cli.cli the names of these modules are those of the commands.
doctor_module = importlib.import_module("balancemm_cli.cli.doctor")
list_module = importlib.import_module("balancemm_cli.cli.list")


@pytest.mark.parametrize("kind", list_module.KINDS)
def test_each_line_has_a_name_a_sentence_and_a_file_that_exists(kind, capsys):
    list_module.list_(kind)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    for line in lines:
        name, what, where = re.fullmatch(r"(\S+)  +(\S.*)  \[(.+)\]", line).groups()
        assert name and what
        assert (ROOT / where).is_file(), f"{where} is named by 'bmm list {kind}'"


def test_what_is_listed_is_what_there_is():
    from balancemm_cli.data.datasets import DATASETS
    from balancemm_cli.methods import METHODS

    assert [entry.name for entry in list_module.datasets()] == list(DATASETS)
    assert [entry.name for entry in list_module.methods()] == list(METHODS)
    files = {f"{path.parent.name}/{path.stem}" for path in (ROOT / "benchmarks/recipes").glob("*/*.toml")}
    found = {entry.name: entry.what for entry in list_module.recipes()}
    assert found.keys() == files
    assert found["ave/paper"].endswith("these are the CVPR paper's.")
    assert all(text.endswith(".") for text in found.values()), found
    assert "tpami2024/12" in {entry.name for entry in list_module.tables()}


def test_without_a_kind_all_are_listed(capsys):
    list_module.list_(None)
    headings = [line[:-1] for line in capsys.readouterr().out.splitlines() if line.endswith(":")]
    assert headings == list(list_module.KINDS)


def test_unknown_kind():
    with pytest.raises(UsageError, match="Did you mean 'methods'"):
        list_module.list_("method")


def test_this_machine_is_fit(capsys):
    doctor_module.doctor()
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "optional"}
    assert any("torch" in line and "threads" in line for line in lines)
    assert any(re.search(r"memory: \d+\.\d GiB", line) for line in lines)


def test_required_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.match(r"[\w-]+", text)[0] for text in project["dependencies"]}
    assert set(doctor_module.PACKAGES.values()) == required


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch, capsys):
    real = importlib.import_module

    def without_av(name):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_av)
    with pytest.raises(InputError, match="1 required"):
        doctor_module.doctor()
    assert "missing   av: pip install av" in capsys.readouterr().out


def test_a_broken_package_is_told_from_an_absent_one(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise OSError('libx.so not found')")
    monkeypatch.syspath_prepend(tmp_path)
    check, module = doctor_module._package("broken_package", "broken-package")
    assert module is None
    assert check.state == "missing"
    assert "libx.so not found" in check.text and "--force-reinstall" in check.text


def test_a_missing_decoder_is_named(monkeypatch):
    import av

    monkeypatch.setitem(doctor_module.DECODERS, "no-such-codec", "nothing")
    (check,) = doctor_module._codecs(av)
    assert check.state == "missing" and "no-such-codec (nothing)" in check.text


def test_listing_published_tables_imports_no_torch():
    code = (
        "import sys; from balancemm_cli.cli.list import list_; list_('tables'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a whole set and one of which files are missing or silent."""
    root = tmp_path_factory.mktemp("sets")
    rows = []
    for number, label in enumerate(["low", "high", "low", "high", "high"]):
        write_wav(root / "media" / f"{number}.wav", tone(0.3))
        rows.append(f"{number},{label},{'test' if number > 2 else 'train'},{number}.wav")
    write_csv(root / "media" / "whole.csv", "id,label,split,audio", *rows)
    write_wav(root / "media" / "silent.wav", tone(0.3, level=0))
    lost = ["a,low,train,none.wav", "b,low,train,silent.wav", "c,low,test,none.wav"]
    write_csv(root / "media" / "lost.csv", "id,label,split,audio", *rows, *lost)
    many = [f"{split}{n},class {n:02d},{split},0.wav" for n in range(11) for split in ("train", "test")]
    write_csv(root / "media" / "many.csv", "id,label,split,audio", *many, "x,class 03,train,1.wav")
    for name in ("whole", "lost", "many"):
        source, out = root / "media" / f"{name}.csv", root / "data" / "prepared" / name
        prepare_dataset("manifest", source, out=out, workers=1, allow_missing=True)
    return root / "data" / "prepared"


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "prepared")
    return tmp_path / "prepared"


def listed(folder, capsys):
    """What `bmm list datasets --prepared` prints, the lines of each folder by its name."""
    list_module.list_("datasets", folder)
    blocks = re.split(r"\n(?=\S)", capsys.readouterr().out.strip())
    return {Path(block.partition(": ")[0]).name: block.partition(": ")[2].splitlines() for block in blocks}


def test_prepared_sets_with_counts_balance_and_hashes(prepared, capsys):
    found = listed(prepared, capsys)
    assert list(found) == ["lost", "many", "whole"]
    manifest = json.loads((prepared / "whole" / "manifest.json").read_text())
    size = sum(path.stat().st_size for path in (prepared / "whole").iterdir())
    assert found["whole"] == [
        f"whole, {size / 1024:.1f} KiB; train 3, test 2",
        "  data set  manifest, split own",
        "  train     3 samples: high 1, low 2",
        "  test      2 samples: high 2, low 0",
        f"  hashes    content {manifest['content_hash'][:12]}, lists {manifest['splits_hash'][:12]}",
    ]
    assert found["lost"][0].endswith("; incomplete; train 3 of 5, test 2 of 3")
    assert found["lost"][2:6] == [
        "  train     3 of 5 samples: high 1, low 2",
        "            rejected: 1 missing, 1 silent",
        "  test      2 of 3 samples: high 2, low 0",
        "            rejected: 1 missing",
    ]
    assert found["many"][2] == "  train     12 samples: 11 classes of 1 to 2"


def test_one_prepared_set_can_be_named_itself(prepared, capsys):
    assert list(listed(prepared / "whole", capsys)) == ["whole"]


def test_the_protocol_and_kept_defects_are_listed(copy, capsys):
    path = copy / "whole" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest |= {"split_description": "by actor: no actor is in two splits", "defects_kept": {"0": "short"}}
    path.write_text(json.dumps(manifest))
    lines = listed(copy, capsys)["whole"]
    assert lines[2] == "  split     by actor: no actor is in two splits"
    assert lines[5] == "  defects   1 samples are kept in spite of a known defect"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), r"manifest\.json is damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "There is no prepared data set in"),
        (
            lambda folder: (folder / "train-00000.arrow").unlink(),
            r"train-00000\.arrow cannot be read \(FileNotFoundError\)",
        ),
        (
            lambda folder: (folder / "train-00000.arrow").write_bytes(b"no"),
            r"arrow is damaged: it has not the [0-9,]+ bytes",
        ),
        (lambda folder: cut(folder / "train-00000.arrow"), r"arrow is damaged: it has not"),
        (lambda folder: set_json(folder, "splits", "train", "rejected", 3), r"manifest\.json is damaged"),
        (lambda folder: set_json(folder, "splits", "train", "expected", None), r"manifest\.json is damaged"),
    ],
)
def test_a_damaged_set_is_one_line(copy, capsys, damage, message):
    damage(copy / "whole")
    lines = listed(copy, capsys)
    assert list(lines) == ["lost", "many", "whole"] and len(lines["whole"]) == 1
    assert re.search(message, lines["whole"][0])


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def set_json(folder, *keys_and_value):
    *keys, last, value = keys_and_value
    manifest = json.loads((folder / "manifest.json").read_text())
    inner = manifest
    for key in keys:
        inner = inner[key]
    inner[last] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_doctor_reads_prepared_sets_whole(copy, capsys):
    """A flipped bit of a waveform shows with --verify alone; what is unfinished is named, and no fault."""
    (copy / ".next.partial").mkdir()
    doctor_module.doctor(copy, verify=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["optional", "ok", "ok", "ok"]
    assert lines[-1].endswith("whole: 0.0 GiB, as its manifest says")
    path = copy / "whole" / "train-00000.arrow"
    data = bytearray(path.read_bytes())
    data[data.index(tone(0.3).tobytes()) + 99] ^= 1
    path.write_bytes(data)
    assert listed(copy, capsys)["whole"][0].startswith("whole, ")
    with pytest.raises(InputError, match=r"1 of 3 prepared set\(s\) are damaged"):
        doctor_module.doctor(copy, verify=True)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"missing   prepared .*whole: .*train-00000\.arrow is damaged: its SHA-256 .*", lines[-1]
    )
    with pytest.raises(InputError, match="1 of 1 prepared"):
        doctor_module.doctor(copy / "whole", verify=True)
    (copy.parent / "nothing").mkdir()
    with pytest.raises(InputError, match="No data set is prepared in"):
        doctor_module.doctor(copy.parent / "nothing", verify=True)


def test_what_is_unfinished_is_said(copy, capsys):
    (copy / ".next.partial" / "set").mkdir(parents=True)
    (copy / "big.part-3-of-16").mkdir()
    (copy / "big.part-3-of-16" / "part.json").write_text("{}")
    (copy / "whole-preview").mkdir()
    (copy / "notes.txt").touch()
    lines = listed(copy, capsys)
    assert list(lines) == [".next.partial", "big.part-3-of-16", "lost", "many", "whole"]
    assert "same `bmm prepare` command" in lines[".next.partial"][0]
    assert "--join" in lines["big.part-3-of-16"][0]


def test_nothing_prepared(tmp_path, capsys):
    list_module.list_("datasets", tmp_path)
    assert "Nothing is prepared in" in capsys.readouterr().out
    with pytest.raises(InputError, match="There is no folder"):
        list_module.list_("datasets", tmp_path / "none")
    with pytest.raises(UsageError, match="bmm list datasets"):
        list_module.list_("methods", tmp_path)


def test_the_doctor_names_prepared_sets(copy, monkeypatch, capsys):
    (copy / "many" / "manifest.json").write_text("{")
    (copy.parent / "data").mkdir()
    copy.rename(copy.parent / "data" / "prepared")
    monkeypatch.chdir(copy.parent)
    doctor_module.doctor()
    lines = [line for line in capsys.readouterr().out.splitlines() if " prepared " in line]
    assert re.fullmatch(r"optional  prepared data/prepared/lost: .*incomplete; train 3 of 5.*", lines[0])
    assert re.fullmatch(r"optional  prepared data/prepared/many: .*damaged.*", lines[1])
    assert re.fullmatch(r"ok        prepared data/prepared/whole: .*train 3, test 2", lines[2])


def test_the_doctor_without_programs_and_opencv(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "cv2", None)  # as if it were not installed
    doctor_module.doctor()
    lines = capsys.readouterr().out.splitlines()
    for what in ("git is not here", "git-lfs is not here", "sbatch is not here", "opencv, for ucf-101"):
        assert any(line.startswith(f"optional  {what}") for line in lines), what
    assert "optional  no data set is prepared in data/prepared: `bmm prepare`" in lines


def test_the_doctor_names_the_package_with_real_data(monkeypatch):
    check = doctor_module._real()
    assert check.state == "ok" and re.fullmatch(
        r"multiviewstacking [\d.]+: the real data of htad", check.text
    )
    monkeypatch.setattr(htad, "PACKAGE", "no-such-package")
    check = doctor_module._real()
    assert check.state == "optional" and check.text.endswith("pip install 'balancemm-cli[real]'")


def test_in_a_terminal_no_word_is_split(bmm, monkeypatch, capsys):
    whole = bmm("list", "methods")[1]
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    narrow = bmm("list", "methods")[1]
    assert narrow.split() == whole.split() and max(map(len, whole.splitlines())) > 60
    assert all(len(line) <= 60 or " " not in line.strip() for line in narrow.splitlines())
