"""MUSIC-AVQA on small trees of the official layouts, with videos and with features, and its true lists."""

import csv
import json
import pickle
import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from media_files import MEDIA, SHARED, needs_media
from small_training import train_and_evaluate

from balancemm_cli.data.datasets import music_avqa
from balancemm_cli.data.datasets.lists import OTHER_LISTS
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import InputError

LISTS = SHARED / "data" / "splits" / "music-avqa"
PARTS = ("train", "val", "test")
ALWAYS = "Is the <Object> in the video always playing?"
HOW_MANY = "How many sounding <Object> in the video？"


def entry(video, number, content, anser, values=(), kind=("Audio-Visual", "Counting"), changes=None):
    official = {
        "video_id": video,
        "question_id": number,
        "type": json.dumps(kind),
        "question_content": content,
        "templ_values": json.dumps(values),
        "question_deleted": 0,
        "anser": anser,
    }
    return {key: value for key, value in {**official, **(changes or {})}.items() if value is not None}


def small_lists():
    return {
        "train": [
            entry("00000001", 1, ALWAYS, "yes", ["tuba"], ["Audio-Visual", "Existential"]),
            entry("va00000002", 2, "Is there a voiceover? ", "no", [], ["Audio-Visual", "Existential"]),
            entry("00000001", 3, HOW_MANY, "two", ["tuba"]),
            entry("00000001", 3, HOW_MANY, "two", ["tuba"]),
        ],
        "val": [entry("00000003", 4, HOW_MANY, "two", ["erhu"])],
        "test": [
            entry("00000004", 5, ALWAYS, "no", ["tuba"], ["Audio-Visual", "Existential"]),
            entry("sa00000005", 6, HOW_MANY, "two", ["tuba"]),
        ],
    }


VIDEOS = ["00000001", "va00000002", "00000003", "00000004", "sa00000005"]


def write_lists(folder, lists, version="json_update"):
    folder = folder / "data" / version
    folder.mkdir(parents=True, exist_ok=True)
    for part, entries in lists.items():
        (folder / f"avqa-{part}.json").write_text(json.dumps(entries, indent=2))
    return folder


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values, **options)


def add_features(source, videos, within="feats"):
    random = np.random.default_rng(0)
    for video in videos:
        save(source / within / "vggish" / f"{video}.npy", random.random((60, 128)))
        save(source / within / "res18" / f"{video}.npy", random.random((60, 512), np.float32))


@pytest.fixture
def tree(tmp_path):
    """Lists in a clone, and features."""
    write_lists(tmp_path / "clone", small_lists())
    add_features(tmp_path / "source", VIDEOS)
    return tmp_path


def plan(tree, allow_missing=True, **options):
    return music_avqa.MusicAVQA().plan(tree / "source", tree / "clone", allow_missing, **options)


def prepare(tree, **options):
    out = tree / "data" / "music-avqa"
    return prepare_dataset(
        "music-avqa", tree / "source", tree / "clone", out, workers=1, allow_missing=True, **options
    )


def rejected(prepared):
    with (prepared.folder / "rejected.csv").open(newline="") as file:
        return {line["id"]: (line["file"], line["reason"]) for line in csv.DictReader(file)}


def test_features_are_prepared_and_train(tree):
    said = []
    prepared = prepare(tree, on_message=said.append)
    assert prepared.counts == prepared.expected == {"train": 4, "val": 1, "test": 2}
    assert prepared.classes == ["no", "two", "yes"]
    assert list(prepared.modalities) == ["audio", "visual", "question"]
    train = prepared.split("train")
    # Those on one video are together; a number that comes twice is told apart.
    assert train.ids == ["00000001-1", "00000001-3", "00000001-3#2", "va00000002-2"]
    assert train.extra("type")[0] == "Audio-Visual-Existential"
    assert train.holders("audio").tolist() == train.holders("visual").tolist() == [0, 0, 0, 3]
    assert train.holders("question").tolist() == [0, 1, 1, 3]
    stored = np.load(tree / "source" / "feats" / "vggish" / "va00000002.npy")[::6].astype(np.float32)
    assert stored.shape == (10, 128) and (train.array("audio", 3).reshape(10, 128) == stored).all()
    assert "The authors' features are used: there are no videos." in said
    assert any(
        "avqa-val.json is not the val list of MUSIC-AVQA (data/json_update): it has 1" in s for s in said
    )
    assert any("it has 4 entries, that one 31,000 to 32,086" in line for line in said)
    assert "The lists have 3 different answers, those of MUSIC-AVQA 42." in said
    train_and_evaluate(prepared, tree / "runs")


@needs_media
def test_videos_are_prepared_and_train(tree):
    """They are taken even where there are features."""
    for video in [*VIDEOS, "00000009"]:
        folder = tree / "source" / f"MUSIC-AVQA-videos-{'Real' if video.isdigit() else 'Synthetic'}"
        folder.mkdir(exist_ok=True)
        shutil.copy(MEDIA / "derived" / "bbb_4s_h264_aac.mp4", folder / f"{video}.mp4")
    shutil.copy(
        MEDIA / "broken" / "truncated_moov_missing.mp4",
        tree / "source" / "MUSIC-AVQA-videos-Synthetic" / "sa00000005.mp4",
    )
    prepared = prepare(tree)
    assert prepared.expected == {"train": 4, "val": 1, "test": 2}
    assert prepared.counts == {"train": 4, "val": 1, "test": 1}
    file, reason = rejected(prepared)["sa00000005-6"]
    assert file == "MUSIC-AVQA-videos-Synthetic/sa00000005.mp4" and reason.startswith("truncated")
    train = prepared.split("train")
    assert train.holders("audio").tolist() == train.holders("visual").tolist() == [0, 0, 0, 3]
    assert len(train.frames("visual", 0)) == 4 and train.lengths("audio").tolist()[1:3] == [0, 0]
    assert "1 video(s) are in no list and are not used." in prepared.manifest["notes"]
    train_and_evaluate(prepared, tree / "runs")


def test_words_come_from_train_alone(tree):
    found = plan(tree)
    words = found.modalities["question"]["words"]
    assert words[:2] == ["<pad>", "<unk>"] and words[2:] == sorted(words[2:])
    said = f"{ALWAYS} Is there a voiceover {HOW_MANY}".replace("<Object>", "tuba")
    assert set(words[2:]) == set(said.replace("?", "").replace("？", "").split())
    clip = found.samples[4].clips["question"]  # of val
    said = clip.read(found.modalities["question"], frozenset())
    assert said.dtype == np.int32
    assert [words[place] for place in said] == ["How", "many", "sounding", "<unk>", "in", "the", "video"]
    assert "1 question(s) of val have words that no train question has; they become <unk>." in found.notes
    assert not any("of test have words" in note for note in found.notes)


def test_features_that_cannot_be_used_are_rejected(tree, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    names = [
        "pickle",
        "objects",
        "shape",
        "steps",
        "width",
        "flat",
        "whole",
        "nan",
        "empty",
        "text",
        "short",
        "huge",
        "beyond",
        "web",
        "open",
        "large",
    ]
    files = {name: tree / "source" / "feats" / "vggish" / f"{name}.npy" for name in names}
    add_features(tree / "source", [*names, "missing"])
    (tree / "source" / "feats" / "vggish" / "missing.npy").unlink()
    files["pickle"].write_bytes(pickle.dumps(Evil()))
    save(files["objects"], np.array([Evil()] * 60, object), allow_pickle=True)
    save(files["shape"], np.zeros((54, 128)))
    save(files["steps"], np.zeros((59, 128)))  # of which as many are kept as of 60
    save(files["width"], np.zeros((60, 127)))
    save(files["flat"], np.float64(3))
    save(files["whole"], np.zeros((60, 128), int))
    save(files["nan"], np.full((60, 128), np.nan))
    files["empty"].write_bytes(b"")
    save(files["text"], np.full((60, 128), "a"))
    files["short"].write_bytes(files["short"].read_bytes()[:-8])
    for name, claim in (("huge", b"1000000000000000"), ("beyond", b"1" + b"0" * 30)):
        header = b"(60, 128), }" + b" " * (len(claim) - 2)
        files[name].write_bytes(files[name].read_bytes().replace(header, b"(" + claim + b", 128), }", 1))
        assert claim in files[name].read_bytes()
    files["web"].write_text("<html>")
    files["open"].write_bytes(files["open"].read_bytes().replace(b"(60, 128), }", b"(60, 128),( "))
    save(files["large"], np.full((60, 128), 1e300))
    lists = small_lists()
    lists["test"] += [entry(name, 10, ALWAYS, "yes", ["tuba"]) for name in [*names, "missing"]]
    write_lists(tree / "clone", lists)
    prepared = prepare(tree)
    reasons = {name.removesuffix("-10"): reason for name, (_, reason) in rejected(prepared).items()}
    unreadable = "unreadable: not an array of numbers in NumPy's format"
    assert reasons == {
        **dict.fromkeys(["pickle", "objects", "empty", "short", "huge", "beyond", "web", "open"], unreadable),
        "shape": "wrong shape: float64 (54, 128) where float (60, 128) belongs",
        "steps": "wrong shape: float64 (59, 128) where float (60, 128) belongs",
        "width": "wrong shape: float64 (60, 127) where float (60, 128) belongs",
        "flat": "wrong shape: float64 () where float (60, 128) belongs",
        "whole": "wrong shape: int64 (60, 128) where float (60, 128) belongs",
        "text": "wrong shape: <U1 (60, 128) where float (60, 128) belongs",
        "nan": "not finite: it holds infinite numbers or NaN",
        "large": "not finite: it holds infinite numbers or NaN",
        "missing": "missing",
    }
    assert not (tmp_path / "executed").exists()
    assert prepared.counts["test"] == 2 and prepared.expected["test"] == 19


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anser": None, "answer": "yes"}, r"avqa-val\.json, entry 2 has no text under 'anser'"),
        ({"anser": 3}, "entry 2 has no text under 'anser'"),
        ({"anser": ""}, "entry 2 has no text under 'anser'"),
        ({"anser": "\ud800"}, "entry 2 has no text under 'anser'"),
        ({"video_id": "../../etc/passwd"}, r"entry 2: '\.\./\.\./etc/passwd' is a path"),
        ({"video_id": 17}, "entry 2 has no text under 'video_id'"),
        ({"question_id": "7"}, "entry 2: 'question_id' is not a whole number"),
        ({"type": ["Audio", "Counting"]}, "entry 2 has no text under 'type'"),
        ({"type": "__import__('os').getcwd()"}, "entry 2: 'type' is not a list of texts, written as JSON"),
        ({"type": '["Audio", "Temporal"]'}, "entry 2: 'Audio-Temporal' is none of the nine types"),
        ({"templ_values": "['tuba']"}, "entry 2: 'templ_values' is not a list of texts"),
        ({"templ_values": "[" * 100000}, "entry 2: 'templ_values' is not a list of texts"),
        ({"templ_values": "[]"}, "entry 2: 'Is the <Object> .* more slots than values"),
        ({"question_content": "?"}, "entry 2: the question has 0 words, not 1 to 14"),
        ({"question_content": 15 * "is "}, "entry 2: the question has 15 words, not 1 to 14"),
    ],
)
def test_entries_that_are_wrong(tree, changes, message):
    lists = small_lists()
    lists["val"].append(entry("00000003", 9, ALWAYS, "yes", ["tuba"], changes=changes))
    write_lists(tree / "clone", lists)
    with pytest.raises(InputError, match=message):
        plan(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "does not hold a list of questions"),
        ("[]", "does not hold a list of questions"),
        ('["a"]', "entry 1 is not an object with keys"),
        ("[[[", "is not valid JSON"),
        ("[" * 100000, "is not valid JSON"),
        ("video_id,anser\n", "is not valid JSON"),
    ],
)
def test_files_that_are_no_lists(tree, text, message):
    (tree / "clone" / "data" / "json_update" / "avqa-val.json").write_text(text)
    with pytest.raises(InputError, match=rf"avqa-val\.json.*{message}"):
        plan(tree)


def test_both_versions_and_lists_alone(tree):
    folder = write_lists(tree / "other", small_lists(), "json")
    original = music_avqa.MusicAVQA().plan(tree / "source", tree / "other", True, split="original")
    assert original.split_description == OTHER_LISTS and original.samples[0].id == "00000001-1"
    assert (original.split_name, original.official_lists) == ("original", False)
    assert (plan(tree).split_name, plan(tree).official_lists) == ("official", False)
    assert any("it has 4 entries, that one 32,087" in note for note in original.notes)
    assert music_avqa.MusicAVQA().plan(tree / "source", folder, True).samples[0] == plan(tree).samples[0]
    with pytest.raises(InputError, match=r"holds no data/json_update/avqa-train\.json nor avqa-train\.json"):
        music_avqa.MusicAVQA().plan(tree / "source", tree / "other", True)


def test_an_answer_must_be_in_train(tree):
    lists = small_lists()
    lists["test"].append(entry("00000004", 12, HOW_MANY, "nine", ["tuba"]))
    write_lists(tree / "clone", lists)
    with pytest.raises(InputError, match=r"No question of avqa-train\.json has the answer 'nine'"):
        plan(tree)


def test_deleted_questions_are_kept_and_counted(tree):
    lists = small_lists()
    lists["train"][0]["question_deleted"] = 1
    write_lists(tree / "clone", lists)
    found = plan(tree)
    assert (
        len(found.samples) == 7 and "1 question(s) are marked question_deleted; they are kept." in found.notes
    )


def test_what_to_get(tree):
    with pytest.raises(InputError, match=r"There is no folder .*36\.67 GB.*data/raw/music-avqa.*--splits"):
        prepare_dataset("music-avqa", tree / "nowhere")
    with pytest.raises(InputError, match=r"lists of questions are not named\. Clone .*--splits"):
        prepare_dataset("music-avqa", tree / "source")
    with pytest.raises(InputError, match=r"avqa-train\.json is not the train list .*it has 4 entries"):
        plan(tree, allow_missing=False)
    shutil.rmtree(tree / "source" / "feats")
    (tree / "source" / "ReadMe.txt").write_text("moved")
    with pytest.raises(InputError, match="holds neither videos nor features"):
        plan(tree)


def test_links_that_lead_out_are_refused(tree):
    save(tree / "elsewhere.npy", np.zeros((60, 128)))
    (tree / "source" / "feats" / "vggish" / "x.npy").symlink_to(tree / "elsewhere.npy")
    with pytest.raises(InputError, match=r"x\.npy is a link to .*elsewhere\.npy"):
        plan(tree)


@pytest.mark.skipif(not LISTS.is_dir(), reason="the shared split lists are absent")
def test_the_true_lists(tree):
    """val and test are the authors'. Their train list is too large to be here, so a part of val is in its place."""
    folder = tree / "clone" / "data" / "json_update"
    for part in ("val", "test"):
        shutil.copy(LISTS / f"update_avqa-{part}.json", folder / f"avqa-{part}.json")
    shutil.copy(LISTS / "update_avqa-val.json", folder / "avqa-train.json")
    found = plan(tree)
    assert not any("val.json" in note or "test.json" in note for note in found.notes)  # recognised
    assert any("avqa-train.json is not the train list" in note for note in found.notes)
    of = {part: [sample for sample in found.samples if sample.split == part] for part in PARTS}
    assert (len(of["val"]), len(of["test"])) == (4568, 9129)
    assert Counter(sample.extras["type"] for sample in of["test"]) == {
        "Audio-Counting": 1017,
        "Audio-Comparative": 594,
        "Visual-Counting": 1197,
        "Visual-Location": 1225,
        "Audio-Visual-Existential": 988,
        "Audio-Visual-Location": 920,
        "Audio-Visual-Counting": 1265,
        "Audio-Visual-Comparative": 1101,
        "Audio-Visual-Temporal": 822,
    }
    assert "2,296 video(s) are in val as well as in test; they stay in both, as listed." in found.notes
    assert len(found.classes) == 41  # the 42nd is in the train list alone
    assert len({sample.id for sample in of["test"]}) == 9129
    lengths = Counter(len(sample.clips["question"].places) for sample in of["test"])
    assert min(lengths) == 4 and max(lengths) == 14 and lengths[14] == 833
    assert len(found.modalities["question"]["words"]) == 2 + 90
    clips = [sample.clips["visual"] for sample in of["test"]]
    changes = 1 + sum(one != two for one, two in pairwise(clips))
    assert changes == len({clip.name for clip in clips}) == 6399  # each video stands in one place
    data = json.loads((folder / "avqa-test.json").read_text())
    (folder / "avqa-test.json").write_text(json.dumps([data[1], data[0], *data[2:]], indent=2))
    assert any(
        "avqa-test.json is not the test list" in note and "SHA-256" in note for note in plan(tree).notes
    )
