"""UCF-101 and UCF-101-Three on small trees in each of the forms in which the media come."""

import csv
import io
import shutil
import struct
import sys

import av
import numpy as np
import pytest
from media_files import MEDIA, SHARED, contents, needs_media, write_video
from PIL import Image
from small_training import train_and_evaluate

from balancemm_cli.data.datasets import ucf_101, ucf_101_three
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.data.reading import flow
from balancemm_cli.data.reading.media import MediaError, read_pairs
from balancemm_cli.errors import InputError

pytestmark = needs_media
LISTS = SHARED / "data" / "splits" / "ucf101"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the shared split lists are absent")

CLASSES = ["Archery", "HandstandPushups", "YoYo"]
TRAIN = ["v_Archery_g08_c01", "v_HandstandPushups_g08_c01", "v_YoYo_g08_c01", "v_YoYo_g08_c02"]
TEST = ["v_Archery_g01_c01", "v_HandstandPushups_g01_c01"]
PICTURES = 30  # in a clip of a pack: two moments, those of the pictures 0 and 25


def official(clip):
    return clip.replace("Handstand", "HandStand")


def entry(clip, spelled=official):
    return f"{clip.split('_')[1]}/{spelled(clip)}.avi"


def write_lists(folder, train=TRAIN, test=TEST, end="\r\n", spelled=official):
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        "classInd": [f"{number} {name}" for number, name in enumerate(CLASSES, 1)],
        "trainlist01": [f"{entry(clip, spelled)} {CLASSES.index(clip.split('_')[1]) + 1}" for clip in train],
        "testlist01": [entry(clip, spelled) for clip in test],
    }
    for name, part in lines.items():
        (folder / f"{name}.txt").write_bytes(end.join(part).encode())
    return folder


def add_video(source, clip, file="derived/v_YoYo_g01_c02_like_noaudio.avi"):
    path = source / "UCF-101" / entry(clip)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(MEDIA / file, path)
    return path


@pytest.fixture(scope="module")
def jpegs():
    """The first pictures of the look-alike clip as JPEG files with a short side of 256."""
    files = []
    with av.open(str(MEDIA / "derived" / "v_YoYo_g01_c01_like.avi")) as container:
        for frame, _ in zip(container.decode(video=0), range(PICTURES), strict=False):
            file = io.BytesIO()
            frame.to_image().resize((341, 256)).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    return files


def write_numbered(pattern, files, width=6):
    pattern.parent.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files, 1):
        pattern.with_name(pattern.name.replace("*", f"{number:0{width}}")).write_bytes(data)


def grey(level):
    file = io.BytesIO()
    Image.new("L", (340, 256), level).save(file, "JPEG", quality=95)
    return file.getvalue()


RIGHT = [grey(130 + number) for number in range(PICTURES - 1)]  # another level in each picture
DOWN = [grey(120 - number) for number in range(PICTURES - 1)]


def add_pack(source, clip, jpegs, right=RIGHT, down=DOWN):
    write_numbered(source / "jpegs_256" / clip / "frame*.jpg", jpegs)
    write_numbered(source / "tvl1_flow" / "u" / clip / "frame*.jpg", right)
    write_numbered(source / "tvl1_flow" / "v" / clip / "frame*.jpg", down)


@pytest.fixture
def videos(tmp_path):
    """The official form, and the lists beside it."""
    source = tmp_path / "ucf-101"
    for clip in TRAIN + TEST:
        add_video(source, clip)
    add_video(source, TRAIN[0], "derived/v_YoYo_g01_c01_like.avi")  # with sound
    write_lists(source / "ucfTrainTestlist")
    return source


@pytest.fixture
def packs(tmp_path, jpegs):
    """The form of the packs, and the lists beside it."""
    source = tmp_path / "packs"
    for clip in TRAIN + TEST:
        add_pack(source, clip, jpegs)
    write_lists(source / "ucfTrainTestlist", spelled=str, end="\n")
    return source


def prepare(source, out, name="ucf-101", workers=1, **options):
    return prepare_dataset(name, source, out=out, workers=workers, allow_missing=True, options=options)


def plan(source, splits=None, allow_missing=True, **options):
    return ucf_101.UCF101().plan(source, splits, allow_missing, **options)


def clip_of(found, clip, modality):
    return next(sample for sample in found.samples if sample.id == clip).clips[modality]


def decoded(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


def levels(jpeg):
    """The two channels of a stored flow picture by their means."""
    picture = decoded(jpeg)
    assert picture.shape == (512, 340)
    return round(picture[:256].mean()), round(picture[256:].mean())


def test_videos_with_computed_flow(videos, tmp_path):
    add_video(videos, TRAIN[2], "video/carphone_pristine.mp4")  # which moves
    prepared = prepare(videos, tmp_path / "ucf-101-dis", flow="dis")
    assert prepared.classes == CLASSES and list(prepared.modalities) == ["rgb", "flow"]
    assert prepared.counts == prepared.expected == {"train": 4, "test": 2}
    assert prepared.modalities["flow"] == {
        **{"kind": "frames", "height": 256, "width": 340, "fps": 1.0, "channels": 2},
        **{"content": "flow", "source": "computed dis"},
    }
    split = prepared.split("train")
    assert split.ids == TRAIN and split.labels.tolist() == [0, 1, 2, 2]
    assert [len(split.frames("rgb", 1)), len(split.frames("flow", 1))] == [6, 5]  # of 126 frames, 25 a second
    pair = read_pairs(videos / "UCF-101" / entry(TRAIN[2]), 256, 340, 1.0)[3]
    expected = flow.as_picture(flow.compute(*pair, "dis")).transpose(2, 0, 1).reshape(512, 340)
    assert np.ptp(expected) > 30
    assert np.abs(decoded(split.frames("flow", 2)[3]) - expected).mean() < 1  # JPEG
    notes = prepared.manifest["notes"]
    assert "the videos in UCF-101/. Flow is computed by DIS of OpenCV" in notes[-1]
    assert sum("of UCF-101: it has" in note for note in notes) == 3
    assert prepared.split_description == "other lists than the official ones"
    assert (prepared.reader, prepared.split_name, prepared.official_lists) == ("ucf-101", "1-dis", False)
    train_and_evaluate(prepared, tmp_path / "runs")


def test_tv_l1_gives_the_same_bytes_with_any_number_of_workers(tmp_path, monkeypatch):
    source = tmp_path / "ucf-101"
    for clip in TRAIN + TEST:
        write_short(add_video(source, clip))
    write_lists(source / "ucfTrainTestlist")
    monkeypatch.setattr("balancemm_cli.data.preparing.prepare.SHARD_SAMPLES", 2)
    one = prepare(source, tmp_path / "one")
    two = prepare(source, tmp_path / "two", workers=2)
    assert one.modalities["flow"]["source"] == "computed tv-l1"
    assert "TV-L1 of OpenCV" in one.manifest["notes"][-1] and len(one.split("train").frames("flow", 0)) == 1
    assert contents(one.folder) == contents(two.folder)


def write_short(path):
    """Replace a video by its first five frames."""
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame, _ in zip(container.decode(video=0), range(5), strict=False)]
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))


def test_packs_are_preferred_and_read_by_number(packs, tmp_path):
    add_video(packs, TRAIN[0])
    (packs / "tvl1_flow" / "u" / TRAIN[0] / "v_Archery_g08_c01.bin").write_bytes(b"stray")
    (packs / "tvl1_flow" / "u" / "{odd}*").mkdir()
    prepared = prepare(packs, tmp_path / "ucf-101")
    assert prepared.modalities["flow"]["source"] == "tv-l1 pack"
    assert (
        prepared.manifest["notes"][-1]
        == "RGB is taken from the pictures in jpegs_256/. Flow is stored (tv-l1 pack)."
    )
    split = prepared.split("train")
    assert split.ids == TRAIN and prepared.counts == {"train": 4, "test": 2}
    assert len(split.frames("rgb", 0)) == 2
    assert [levels(jpeg) for jpeg in split.frames("flow", 0)] == [(130, 120), (155, 95)]
    assert prepare(packs, tmp_path / "ucf-101").content_hash == prepared.content_hash  # nothing to do
    picture = packs / "tvl1_flow" / "v" / TRAIN[0] / "frame000026.jpg"
    other = next(
        path for path in sorted(picture.parent.iterdir()) if path.read_bytes() != picture.read_bytes()
    )
    picture.write_bytes(other.read_bytes())  # as many pictures as before
    with pytest.raises(InputError, match="was prepared from other media"):
        prepare(packs, tmp_path / "ucf-101")


def test_dense_flow_pictures(tmp_path, jpegs):
    for clip in TRAIN + TEST:
        folder = tmp_path / "rawframes" / clip.split("_")[1] / official(clip)
        for pattern, files in (("img_*.jpg", jpegs), ("flow_x_*.jpg", RIGHT), ("flow_y_*.jpg", DOWN)):
            write_numbered(folder / pattern, files, width=5)
    write_lists(tmp_path / "ucfTrainTestlist")
    found = plan(tmp_path)
    assert found.modalities["flow"]["source"] == "dense-flow pictures"
    assert "the pictures in rawframes/" in found.notes[-1]
    clip = clip_of(found, TRAIN[1], "flow")
    assert clip.name == "rawframes/HandstandPushups/v_HandStandPushups_g08_c01/flow_{x,y}_*.jpg"
    assert [levels(jpeg) for jpeg in clip.read(found.modalities["flow"], frozenset())] == [
        (130, 120),
        (155, 95),
    ]
    assert len(clip_of(found, TRAIN[1], "rgb").read(found.modalities["rgb"], frozenset())) == 2


def test_flow_of_pictures_is_computed_where_it_is_asked_for_or_not_stored(packs):
    found = plan(packs, flow="dis")
    assert found.modalities["flow"]["source"] == "computed dis"
    clip = clip_of(found, TRAIN[0], "flow")
    assert isinstance(clip, ucf_101.Pictures)
    assert len(clip.read(found.modalities["flow"], frozenset())) == 2
    shutil.rmtree(packs / "tvl1_flow")
    assert plan(packs).modalities["flow"]["source"] == "computed tv-l1"


def test_stored_flow_beside_videos(packs):
    shutil.rmtree(packs / "jpegs_256")
    add_video(packs, TRAIN[0])
    found = plan(packs)
    assert found.modalities["flow"]["source"] == "tv-l1 pack" and "the videos" in found.notes[-1]
    assert clip_of(found, TRAIN[0], "flow").read(found.modalities["flow"], frozenset())


def test_a_pack_of_which_one_part_was_unzipped(packs):
    shutil.rmtree(packs / "tvl1_flow" / "v")
    with pytest.raises(
        InputError, match=r"holds no v/ with clips.*join the three parts.*`cat NAME\.zip\.00\*"
    ):
        plan(packs)
    assert plan(packs, flow="dis").modalities["flow"]["source"] == "computed dis"
    shutil.rmtree(packs / "tvl1_flow" / "u")
    with pytest.raises(InputError, match=r"no u/ and no v/"):
        plan(packs)


def test_defects_of_packs_are_rejected(packs, tmp_path, jpegs):
    clips = [f"v_YoYo_g09_c0{number}" for number in range(1, 8)]
    for clip in clips:
        add_pack(packs, clip, jpegs)
    (packs / "tvl1_flow" / "v" / clips[0] / f"frame{PICTURES - 1:06}.jpg").unlink()
    (packs / "jpegs_256" / clips[1] / "frame000007.jpg").unlink()
    (packs / "jpegs_256" / clips[2] / "frame000026.jpg").write_bytes(jpegs[25][:2000])
    shutil.rmtree(packs / "tvl1_flow" / "v" / clips[3])
    shutil.rmtree(packs / "jpegs_256" / clips[4])
    for folder in ("u", "v"):
        for number in range(3, PICTURES):
            (packs / "tvl1_flow" / folder / clips[5] / f"frame{number:06}.jpg").unlink()
    (packs / "tvl1_flow" / "u" / clips[6] / "frame000001.jpg").write_bytes(b"")
    write_lists(packs / "ucfTrainTestlist", TRAIN + clips)
    prepared = prepare(packs, tmp_path / "out")
    assert prepared.counts == {"train": 4, "test": 2} and prepared.expected == {"train": 11, "test": 2}
    reasons = rejected(prepared)
    flow_name = "tvl1_flow/{u,v}/%s/frame*.jpg"
    assert reasons == {
        clips[0]: (flow_name % clips[0], "incomplete: 29 pictures to the right, 28 down"),
        clips[1]: (f"jpegs_256/{clips[1]}/frame*.jpg", "incomplete: 29 pictures with the numbers 1 to 30"),
        clips[2]: (
            f"jpegs_256/{clips[2]}/frame*.jpg",
            "truncated: frame000026.jpg (truncated: the JPEG file has no end)",
        ),
        clips[3]: (flow_name % clips[3], "missing"),
        clips[4]: (f"jpegs_256/{clips[4]}/frame*.jpg", "missing"),
        clips[5]: (flow_name % clips[5], "incomplete: 2 pictures of flow belong to 30 RGB pictures"),
        clips[6]: (flow_name % clips[6], "empty file: frame000001.jpg (empty file)"),
    }


def rejected(prepared):
    with (prepared.folder / "rejected.csv").open(newline="") as file:
        return {line["id"]: (line["file"], line["reason"]) for line in csv.DictReader(file)}


def test_defects_of_videos(videos):
    add_video(videos, TRAIN[0], "broken/truncated_half.avi")
    declare_a_million_frames(videos / "UCF-101" / entry(TRAIN[1]))
    (videos / "UCF-101" / entry(TRAIN[2])).write_bytes(b"")
    found = plan(videos, flow="dis")
    for clip, kind in zip(TRAIN, ("truncated", "truncated", "empty file"), strict=False):
        for modality, spec in found.modalities.items():
            with pytest.raises(MediaError) as error:
                clip_of(found, clip, modality).read(spec, frozenset())
            assert error.value.kind == kind, (clip, modality)


def declare_a_million_frames(path):
    """Write 1,000,000 into both frame counts of an AVI file's headers."""
    data = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        struct.pack_into("<I", data, data.index(chunk) + offset, 1_000_000)
    path.write_bytes(data)


def test_one_picture_has_no_motion(packs, jpegs):
    shutil.rmtree(packs / "jpegs_256" / TRAIN[0])
    write_numbered(packs / "jpegs_256" / TRAIN[0] / "frame*.jpg", jpegs[:1])
    found = plan(packs, flow="dis")
    assert len(clip_of(found, TRAIN[0], "rgb").read(found.modalities["rgb"], frozenset())) == 1
    with pytest.raises(MediaError, match="one frame: motion needs two"):
        clip_of(found, TRAIN[0], "flow").read(found.modalities["flow"], frozenset())


def test_missing_clips_need_leave(videos, monkeypatch):
    monkeypatch.setattr(ucf_101, "LISTS", lists_of(videos / "ucfTrainTestlist"))
    shutil.rmtree(videos / "UCF-101" / "YoYo")
    with pytest.raises(
        InputError, match=r"2 of the 6 files .*UCF-101/YoYo/v_YoYo_g08_c01\.avi\)\. Unpack UCF101\.rar whole"
    ):
        prepare_dataset("ucf-101", videos, options={"flow": "dis"})


def lists_of(folder):
    """Count and hash of the small lists, in the place of those of the true ones."""
    import hashlib

    texts = {
        path.stem: path.read_text().replace("HandStand", "Handstand") + "\n" for path in folder.iterdir()
    }
    return {
        name: (len(text.strip().split("\n")), hashlib.sha256(text.encode()).hexdigest())
        for name, text in texts.items()
    }


def test_the_two_spellings_are_one(videos, monkeypatch):
    monkeypatch.setattr(ucf_101, "LISTS", lists_of(videos / "ucfTrainTestlist"))
    first = plan(videos, allow_missing=False, flow="dis")
    write_lists(videos.parent / "lists", end="\n", spelled=str)
    assert plan(videos, videos.parent / "lists", False, flow="dis") == first
    folder = videos / "UCF-101" / "HandstandPushups"
    (folder / f"{official(TEST[1])}.avi").rename(folder / f"{TEST[1]}.avi")  # one of either spelling
    second = plan(videos, allow_missing=False, flow="dis")
    assert [sample.id for sample in second.samples] == TRAIN + TEST
    assert all(sample.clips["rgb"].size() for sample in second.samples)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("YoYo/v_YoYo_g08_c03.mp4 3", "entry 5: 'YoYo/v_YoYo_g08_c03.mp4 3' is not of the form"),
        ("v_YoYo_g08_c03 3", "is not of the form"),
        ("../YoYo/v_YoYo_g08_c03.avi 3", "is not of the form"),
        ("YoYo/../../v_YoYo_g08_c03.avi 3", "is not of the form"),
        ("YoYo/v_Archery_g08_c03.avi 3", "is not of the form"),
        ("Surfing/v_Surfing_g08_c03.avi 4", "the class 'Surfing' is not in classInd.txt"),
        ("YoYo/v_YoYo_g08_c03.avi 2", "class 2 is not 'YoYo' by classInd.txt"),
        ("YoYo/v_YoYo_g08_c02.avi 3", "'v_YoYo_g08_c02' is listed in trainlist01.txt before"),
    ],
)
def test_lines_that_make_no_sense(videos, line, message):
    path = videos / "ucfTrainTestlist" / "trainlist01.txt"
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(InputError) as error:
        plan(videos)
    assert message in str(error.value) and str(path) in str(error.value)


def test_classes_that_make_no_sense(videos):
    path = videos / "ucfTrainTestlist" / "classInd.txt"
    path.write_text("1 Archery\n3 YoYo\n")
    with pytest.raises(InputError, match="entry 2: '3 YoYo' is not of the form '2 ApplyEyeMakeup'"):
        plan(videos)


def test_lists_of_another_kind_are_named(videos):
    folder = videos / "ucfTrainTestlist"
    names = [f"Class{letter}" for letter in "ABCDEFGHIJ"]
    (folder / "classInd.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(names, 1)))
    with pytest.raises(
        InputError, match=r"not the official classInd\.txt of UCF-101: it has 10 entries, that one 101"
    ):
        plan(videos, allow_missing=False)
    (folder / "classInd.txt").unlink()  # the zip of the other task has no such file
    with pytest.raises(InputError, match=r"no .*classInd\.txt.*RecognitionTask\.zip \(not DetectionTask\)"):
        plan(videos)
    with pytest.raises(InputError, match=r"There is no folder .*nowhere.*--splits"):
        plan(videos, videos / "nowhere")
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"There is no folder ucfTrainTestlist/.*beside the media"):
        plan(videos)


@needs_lists
def test_the_lists_of_the_detection_task_are_named(videos):
    """They name clips of 24 of the 101 classes."""
    folder = videos / "lists"
    shutil.copytree(LISTS, folder)
    lines = (LISTS / "trainlist01.txt").read_text().splitlines(keepends=True)
    (folder / "trainlist01.txt").chmod(0o644)
    (folder / "trainlist01.txt").write_text("".join(line for line in lines if int(line.split()[1]) <= 24))
    with pytest.raises(InputError, match=r"trainlist01\.txt.* that one 9,537\. .*not DetectionTask"):
        plan(videos, folder, allow_missing=False, flow="dis")


@pytest.mark.parametrize("name", ["UCF-101", "UCF-101/YoYo", "UCF-101/YoYo/v_YoYo_g08_c01.avi"])
def test_links_out_of_the_tree(videos, tmp_path, name):
    (videos / name).rename(tmp_path / "elsewhere")
    (videos / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"is a link to .*elsewhere, outside"):
        plan(videos)


@pytest.mark.parametrize(
    "name", ["jpegs_256", f"tvl1_flow/u/{TRAIN[0]}", f"jpegs_256/{TEST[0]}/frame000001.jpg"]
)
def test_links_out_of_the_packs(packs, tmp_path, name):
    (packs / name).rename(tmp_path / "elsewhere")
    (packs / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"is a link to .*elsewhere, outside"):
        plan(packs)


def test_what_to_get(tmp_path):
    for name in ("ucf-101", "ucf-101-three"):
        with pytest.raises(
            InputError, match=r"There is no folder .*UCF101\.rar .*into data/raw/ucf-101.*--source"
        ):
            prepare_dataset(name, tmp_path / "nowhere")
    (tmp_path / "YoYo").mkdir()
    with pytest.raises(InputError, match=r"ucfTrainTestlist/"):
        prepare_dataset("ucf-101", tmp_path)
    write_lists(tmp_path / "ucfTrainTestlist")
    with pytest.raises(
        InputError, match=r"none of UCF-101/, jpegs_256/ and rawframes/.*there: YoYo, ucfTrain"
    ):
        plan(tmp_path)


def test_opencv_is_asked_for_before_anything_is_decoded(videos, packs, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"pip install 'balancemm-cli\[flow\]'"):
        plan(videos)
    assert plan(packs).modalities["flow"]["source"] == "tv-l1 pack"  # needs none


def test_three_modalities(packs, tmp_path):
    pictures = packs / "jpegs_256" / TRAIN[2]
    for number, colour in ((26, (100, 50, 200)), (27, (90, 80, 200))):
        Image.new("RGB", (341, 256), colour).save(
            pictures / f"frame{number:06}.jpg", quality=95, subsampling=0
        )
    prepared = prepare(packs, tmp_path / "ucf-101-three", "ucf-101-three")
    assert prepared.name == "ucf-101-three" and list(prepared.modalities) == ["rgb", "flow", "rgb-difference"]
    assert prepared.modalities["rgb-difference"]["content"] == "rgb-difference"
    stored = decoded(prepared.split("train").frames("rgb-difference", 2)[1])
    assert stored.shape == (256, 340, 3)
    assert np.abs(stored - (10, 30, 0)).max() <= 3  # JPEG, twice
    train_and_evaluate(prepared, tmp_path / "runs")


def test_three_modalities_of_videos(videos):
    write_video(videos / "UCF-101" / entry(TRAIN[0]), [5 * number for number in range(51)], fps=25)
    found = ucf_101_three.UCF101Three().plan(videos, None, True, flow="dis")
    clips = found.samples[0].clips
    assert clips["rgb"] == clips["flow"] == clips["rgb-difference"]  # one file, counted once
    pictures = clips["rgb"].read(found.modalities["rgb-difference"], frozenset())
    assert len(pictures) == 2 and all(np.abs(decoded(jpeg) - 5).max() <= 1 for jpeg in pictures)


@needs_lists
@pytest.mark.parametrize("folder", [LISTS, LISTS / "official_crlf"])
@pytest.mark.parametrize(
    ("split", "train", "test"), [("1", 9537, 3783), ("2", 9586, 3734), ("3", 9624, 3696)]
)
def test_the_true_lists(videos, folder, split, train, test):
    found = plan(videos, folder, False, split=split, flow="dis")
    assert found.split_description.startswith(f"split {split} of the official three")
    assert (found.split_name, found.official_lists) == (f"{split}-dis", True)
    assert len(found.notes) == 1 and len(found.classes) == 101 and found.classes[36] == "HandstandPushups"
    parts = {part: [s for s in found.samples if s.split == part] for part in ("train", "test")}
    assert [len(part) for part in parts.values()] == [train, test]
    assert len({sample.id for sample in found.samples}) == 13320
    groups = [{sample.id.rsplit("_", 1)[0] for sample in part} for part in parts.values()]
    assert not groups[0] & groups[1] and len(groups[0] | groups[1]) == 101 * 25
    here = [sample.id for sample in found.samples if sample.clips["rgb"].size() is not None]
    assert sorted(here) == sorted(TRAIN + TEST)  # the HandStandPushups videos among them
