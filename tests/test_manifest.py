"""The user's own data: any mix of media, and clear errors for CSVs that are not right."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
from media_files import MEDIA, needs_media, tone, write_csv, write_video, write_wav
from PIL import Image
from torch import nn

from balancemm_cli.data.datasets import manifest
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import InputError, UsageError


@pytest.fixture
def files(tmp_path):
    """A sound, a video with sound, and a picture."""
    write_wav(tmp_path / "a.wav", tone(1.0))
    write_video(tmp_path / "v.mkv", [10 * i for i in range(20)], samples=tone(4.0))
    Image.fromarray(np.full((20, 30, 3), 77, np.uint8)).save(tmp_path / "p.png")
    return tmp_path


def prepare(path, **options):
    return prepare_dataset("manifest", path, out=path.parent / "out", workers=1, **options)


def rejected(prepared):
    with (prepared.folder / "rejected.csv").open(newline="") as file:
        return {line["id"]: line for line in csv.DictReader(file)}


def test_one_modality(files):
    prepared = prepare(
        write_csv(files / "mine.csv", "id,label,split,speech", "x,a,train,a.wav", "y,b,train,v.mkv")
    )
    assert prepared.name == "mine" and list(prepared.modalities) == ["speech"]
    split = prepared.split("train")
    np.testing.assert_array_equal(split.array("speech", 0), tone(1.0))
    assert len(split.array("speech", 1)) == 64000


def test_two_and_three_modalities_with_times(files):
    prepared = prepare(
        write_csv(
            files / "m.csv",
            "id,label,split,start,end,audio,video,still:visual",
            "x,a,train,1,3,v.mkv,v.mkv,p.png",
            "y,b,train,,,a.wav,v.mkv,p.png",
            "z,a,test,0.5,,v.mkv,v.mkv,v.mkv",
        )
    )
    assert {name: kind["kind"] for name, kind in prepared.modalities.items()} == {
        "audio": "waveform",
        "video": "frames",
        "still": "frames",
    }
    train, test = prepared.split("train"), prepared.split("test")
    np.testing.assert_array_equal(train.array("audio", 0), tone(4.0)[16000:48000])
    assert [len(train.frames("video", row)) for row in (0, 1)] == [2, 4]
    assert [len(train.frames("still", row)) for row in (0, 1)] == [1, 1]
    assert len(test.frames("video", 0)) == 4 and len(test.array("audio", 0)) == 56000


@pytest.mark.parametrize(
    ("header", "kind"),
    [("x:audio", "waveform"), ("x:visual", "frames"), ("Sound", "waveform"), ("face", "frames"), ("x", None)],
)
def test_the_kind_of_a_modality(files, header, kind):
    path = write_csv(files / "m.csv", f"id,label,split,{header}", "x,a,train,v.mkv")
    if kind is None:
        with pytest.raises(InputError, match="Write one of 'x:audio', 'x:visual', "):
            manifest.Manifest().plan(path, None, False)
    else:
        (modality,) = manifest.Manifest().plan(path, None, False).modalities.values()
        assert modality["kind"] == kind


@pytest.mark.parametrize(("file", "kind"), [("a.wav", "waveform"), ("p.png", "frames")])
def test_the_kind_by_extension(files, file, kind):
    path = write_csv(files / "m.csv", "id,label,split,x", f"x,a,train,{file}")
    assert manifest.Manifest().plan(path, None, False).modalities["x"]["kind"] == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,label,split,audio\n", "no sample"),
        ("id,split,audio\nx,train,a.wav\n", "no column 'label'"),
        ("id,label,split\nx,a,train\n", "no column of a modality"),
        ("id,label,split,audio,audio\nx,a,train,a.wav,a.wav\n", "two of one name"),
        ("id,label,split,b:audio,b:visual\nx,a,train,a.wav,v.mkv\n", "two columns for one modality"),
        ("id,label,split,b:smell\nx,a,train,a.wav\n", "forms name:audio, name:visual"),
        ("id,label,split,audio\nx,a,train,a.wav\nx,a,train,a.wav\n", "line 3: the id 'x' is that of line 2"),
        ("id,label,split,audio\nx,,train,a.wav\n", "line 2: the cell of 'label' is empty"),
        ("id,label,split,audio\n\nx,a,train,\n", "line 3: the cell of 'audio' is empty"),
        ("id,label,split,audio\nx,a,tset,a.wav\n", "line 2: the split 'tset'"),
        ("id,label,split,audio\nx,a,train,a.wav,b\n", "line 2: 5 cells"),
        ("id,label,split,audio,start\nx,a,train,a.wav,soon\n", "line 2: the start 'soon'"),
        ("id,label,split,audio,start\nx,a,train,a.wav,-1\n", "line 2: the start '-1'"),
        ("id,label,split,audio,end\nx,a,train,a.wav,nan\n", "line 2: the end 'nan'"),
        ("id,label,split,audio,start,end\nx,a,train,a.wav,2,1\n", "line 2: the end 1.0 s is not after"),
        ('id,label,split,audio\nx,a,train,"a.wav\n', "this is no CSV"),
        ("id,label,split,audio\nx,a,test,a.wav\n", "no sample of the split 'train'"),
        ("id,label,split,audio\nx,a,train,a.wav\ny,b,test,a.wav\n", "Class 'b' .* has no sample"),
    ],
)
def test_bad_csvs(files, text, message):
    path = files / "m.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        prepare(path)
    assert "\n" not in str(caught.value)
    assert not (files / "out").exists()


def test_not_text(files):
    (files / "m.csv").write_bytes(b"id,label\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        prepare(files / "m.csv")


def test_byte_order_mark_and_crlf(files):
    (files / "m.csv").write_bytes("\ufeffid,label,split,audio\r\nx,a,train,a.wav\r\n\r\n".encode())
    assert prepare(files / "m.csv").split("train").ids == ["x"]


def test_source_may_be_a_folder(files):
    with pytest.raises(InputError, match="no CSV file"):
        manifest.Manifest().plan(files, None, False)
    path = write_csv(files / "one.csv", "id,label,split,audio", "x,a,train,a.wav")
    assert manifest.Manifest().plan(files, None, False).name == "one"
    path.with_name("two.csv").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="2 CSV files"):
        manifest.Manifest().plan(files, None, False)
    path.rename(files / "manifest.csv")
    assert manifest.Manifest().plan(files, None, False).name == "manifest"
    with pytest.raises(InputError, match="no file or folder"):
        manifest.Manifest().plan(files / "nowhere", None, False)
    with pytest.raises(UsageError, match="no split lists"):
        manifest.Manifest().plan(files, files, False)


def test_missing_files_need_leave(files):
    path = write_csv(files / "m.csv", "id,label,split,audio", "x,a,train,a.wav", "y,a,train,gone.wav")
    with pytest.raises(
        InputError, match=r"1 of the 2 files .* missing \(first: gone\.wav\).*--allow-missing"
    ):
        prepare(path)
    prepared = prepare(path, allow_missing=True)
    assert rejected(prepared)["y"] == {"id": "y", "split": "train", "file": "gone.wav", "reason": "missing"}
    assert prepared.counts == {"train": 1} and prepared.expected == {"train": 2}


def test_a_class_that_rejection_emptied(files):
    write_wav(files / "silent.wav", np.zeros(8000, np.int16))
    path = write_csv(files / "m.csv", "id,label,split,audio", "x,a,train,a.wav", "y,b,train,silent.wav")
    with pytest.raises(InputError, match=r"class 'b' has no sample.*rejected\.csv says why"):
        prepare(path)
    assert not (files / "out").exists()
    assert "silent" in (files / ".out.partial" / "rejected.csv").read_text()
    write_wav(files / "silent.wav", tone(1.0))
    assert prepare(path).counts == {"train": 2}


def test_a_part_beyond_the_media(files):
    path = write_csv(
        files / "m.csv", "id,label,split,audio,start,end", "x,a,train,a.wav,0,0.5", "y,a,train,a.wav,0.5,9"
    )
    prepared = prepare(path)
    assert rejected(prepared)["y"]["reason"].startswith("outside: the media end at 1.00 s")


SILENT_OR_WITHOUT = {"cockatoo.mp4": "silent", "no_duration.webm": "silent", "silent_zeros_16k.wav": "silent"}


@pytest.mark.long
@needs_media
def test_every_shared_file_is_taken_in_or_named(tmp_path):
    """All media of the shared folder, each as a sound and as a picture: none is lost, none crashes."""
    kept_apart = ("faults", "real")  # with a list of their own of what is right for each file
    files = sorted(
        path for path in MEDIA.glob("*/*") if path.is_file() and path.parent.name not in kept_apart
    )
    lines = []
    for index, path in enumerate(files):
        name = os.path.relpath(path, tmp_path)
        lines.append(f"{path.name},{'ab'[index % 2]},train,{name}")
    counts = {}
    for modality in ("audio", "visual"):
        csv_file = write_csv(tmp_path / f"{modality}.csv", f"id,label,split,{modality}", *lines)
        prepared = prepare_dataset("manifest", csv_file, out=tmp_path / modality, workers=2)
        out = rejected(prepared)
        assert len(prepared.split("train")) + len(out) == len(files)
        assert {*prepared.split("train").ids, *out} == {path.name for path in files}
        counts[modality] = out
    audio, visual = counts["audio"], counts["visual"]
    for name, reason in {
        "lfs_pointer.wav": "git-LFS pointer",
        "html_error_page.mp4": "web page",
        "zero_bytes.mp4": "empty file",
        "truncated_half.avi": "truncated",
        "truncated_half.flv": "truncated",
        "bbb_truncated_5pct.webm": "truncated",
        "truncated_moov_missing.mp4": "truncated",
        "bitflips_h264_aac.mp4": "damaged",
    }.items():
        assert audio[name]["reason"].startswith(reason) and visual[name]["reason"].startswith(reason)
    for name, reason in SILENT_OR_WITHOUT.items():
        assert audio[name]["reason"].startswith(reason)
    healthy = {path.name for path in files if path.parent.name in ("video", "derived")}
    assert set(visual) & healthy == {"1001_IEO_NEU_XX.wav", "bbb_10s_audio_only.mp4"}
    assert {line["reason"] for name, line in visual.items() if name in healthy} == {"no video stream"}
    assert not {path.name for path in files if path.parent.name == "audio"} & set(audio)
    with_sound = {name for name, line in audio.items() if line["reason"] == "no audio stream"}
    assert "bikes.mp4" in with_sound and "bbb_10s_h264_aac.mp4" not in audio


@pytest.mark.parametrize("name", ["a/b", "label", "id", "x y", "cam.1", "_x", "forward", "type", "training"])
def test_a_modality_has_a_plain_name_of_its_own(tmp_path, name):
    write_wav(tmp_path / "a.wav", tone(0.5))
    table = write_csv(tmp_path / "mine.csv", f"id,label,split,{name}:audio", "1,a,train,a.wav")
    with pytest.raises(InputError, match="can't be the name of a modality"):
        prepare_dataset("manifest", table, out=tmp_path / "set", workers=1)


def test_the_names_that_torch_has_are_known():
    """A list, so that preparing need not wait for torch."""
    names = {name for one in (nn.ModuleDict(), nn.ParameterDict()) for name in dir(one) if name[0] != "_"}
    assert names <= set(manifest.OF_TORCH)


def test_a_csv_whose_name_is_no_text_is_refused(tmp_path):
    table = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv"))
    write_csv(table, "id,label,split,audio", "1,a,train,a.wav")
    with pytest.raises(InputError, match="is no plain text, or begins with a dot, and it names the data set"):
        manifest.Manifest().plan(table, None, False)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["1,a,train,a.wav", "2,a,test,b.wav"], "the one label 'a'"),
        (["1,Happy,train,a.wav", "2,happy ,test,b.wav"], "'Happy' and 'happy' are two classes"),
        (
            ["1,caf\u00e9,train,a.wav", "2,cafe\u0301,test,b.wav"],
            "differ in capitals, blanks or Unicode form",
        ),
        (["1,a,train,a.wav", "2,b,test,a.wav"], "The file 'a.wav' is in test and train."),
        (
            ["ann-1,a,train,a.wav", "ann-2,b,test,b.wav", "bob-1,a,train,c.wav", "bob-2,b,train,d.wav"],
            "The group 'ann' is in test and train.",
        ),
        (["1,a,train,a.wav", "2,b,train,b.wav", "3,a,test,c.wav", "4,b,test,d.wav"], ""),
        (["clip1,a,train,a.wav", "clip2,b,train,b.wav", "clip3,a,test,c.wav", "clip4,b,test,d.wav"], ""),
    ],
)
def test_what_a_user_may_not_have_meant_is_noted(tmp_path, rows, said):
    table = write_csv(tmp_path / "mine.csv", "id,label,split,audio", *rows)
    notes = manifest.Manifest().plan(table, None, False).notes
    assert (len(notes) == 1 and said in notes[0]) if said else notes == []


def test_copies_over_two_splits_are_noted(tmp_path):
    for number, frequency in enumerate((300, 300, 900, 500)):
        write_wav(tmp_path / f"{number}.wav", tone(0.5, frequency=frequency))
    rows = ["0,a,train,0.wav", "1,b,test,1.wav", "2,b,train,2.wav", "3,a,test,3.wav"]
    table = write_csv(tmp_path / "mine.csv", "id,label,split,audio", *rows)
    said = []
    prepare_dataset("manifest", table, out=tmp_path / "out", workers=1, on_message=said.append)
    (line,) = [line for line in said if "The same content is in two splits" in line]
    assert "0.wav (train) and " in line and "1.wav (test)" in line


def test_a_link_to_an_empty_folder_is_filled(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.5))
    table = write_csv(tmp_path / "mine.csv", "id,label,split,audio", "1,a,train,a.wav", "2,a,test,a.wav")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    prepare_dataset("manifest", table, out=tmp_path / "out", workers=1)
    assert (tmp_path / "out").is_symlink() and (tmp_path / "elsewhere" / "manifest.json").is_file()


def test_where_paths_begin_is_said_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = write_csv(Path("mine.csv"), "id,label,split,audio", "1,a,train,nowhere.wav")
    with pytest.raises(InputError, match=f"relative to its folder, {re.escape(str(tmp_path))}[.] "):
        prepare_dataset("manifest", table, out=tmp_path / "out", workers=1)
