"""Batches: resident and streaming give the same; frames and waveforms are chosen as said."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balancemm_cli.data import loading, store
from balancemm_cli.data.loading import FramesColumn, NumbersColumn, Room, Source, free_memory, make_resident
from balancemm_cli.data.reading.media import encode_jpeg
from balancemm_cli.data.store import open_set
from balancemm_cli.data.transforms import LogSpectrogram, Pictures
from balancemm_cli.errors import InputError
from balancemm_cli.random_streams import RandomStreams

CPU = torch.device("cpu")


SPECTROGRAM = LogSpectrogram(8000, 6000, 256, 100, True, 1e-7)


def source_of(prepared, shape=(12_000,)):
    split = open_set(prepared / "synthetic").split("train")
    columns = {
        "audio": NumbersColumn(split, "audio", shape, repeat=True, ready=SPECTROGRAM),
        "visual": FramesColumn(split, "visual", (48, 48, 3), 2, "random"),
    }
    return Source(split, columns)


def resident(prepared, monkeypatch, free):
    monkeypatch.setattr(loading, "free_memory", lambda: free)
    source = source_of(prepared)
    return source, make_resident([source], "resident")


def test_resident_and_streaming_give_the_same_inputs(prepared, monkeypatch):
    """To the bit, also where spectrograms were computed once, in other batches."""
    streaming = source_of(prepared)
    raw, ready = streaming.size(ready=False), streaming.size(ready=True)
    assert raw < ready
    assert make_resident([streaming], "streaming").startswith("Streaming")
    waves, said = resident(prepared, monkeypatch, (raw + ready) // 2)
    assert said.startswith("Resident") and "spectrograms" not in said
    spectrograms, said = resident(prepared, monkeypatch, ready)
    assert said.startswith("Resident") and "spectrograms computed once" in said
    pictures = Pictures(32, True, True, (0.5,) * 3, (0.2,) * 3)
    rows = [np.array([5, 1, 90]), np.arange(20, 30), np.array([7]), np.arange(60), np.arange(5)]
    draws = [RandomStreams(0, 0, step) for step in range(5)]
    served = [list(source.batches(rows, draws, CPU)) for source in (streaming, waves, spectrograms)]
    waveforms, pictures_of_sound = (served[mode][1][0]["audio"] for mode in (1, 2))
    assert isinstance(waveforms, torch.Tensor) and isinstance(pictures_of_sound, torch.Tensor)
    assert waveforms.dtype == torch.int16 and waveforms.shape == (10, 12_000)
    assert pictures_of_sound.dtype == torch.float32
    for step, parts in enumerate(zip(*served, strict=True)):
        expected, *others = [
            (SPECTROGRAM(raw["audio"]), pictures(raw["visual"], draws[step], "visual"), labels)
            for raw, labels in parts
        ]
        assert expected[0].shape == (len(rows[step]), 1, 129, 91) and len(expected[2]) == len(rows[step])
        for found in others:
            assert all(torch.equal(one, two) for one, two in zip(expected, found, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_the_same_samples(prepared):
    streaming, held = source_of(prepared), source_of(prepared)
    gpu = torch.device("cuda")
    make_resident([streaming], "streaming", gpu)
    assert make_resident([held], "auto", gpu).startswith("Resident on the GPU")
    rows, draws = [np.array([5, 1, 90]), np.arange(20, 30)], [RandomStreams(0, 0, 0), RandomStreams(0, 0, 1)]
    for one, two in zip(*(source.batches(rows, draws, gpu) for source in (streaming, held)), strict=True):
        assert torch.equal(one[1], two[1]) and one[0]["visual"].is_cuda
        assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])


def test_batches_are_read_ahead_but_not_far(prepared):
    source, taken = source_of(prepared), []
    rows = (taken.append(step) or np.array([step]) for step in range(40))
    batches = source.batches(rows, [None] * 40, CPU)
    for step in range(40):
        assert next(batches)[1].shape == (1,)
        assert len(taken) <= step + 1 + loading.AHEAD


class FakeSplit:
    """Waveforms and grey frames of given counts; frame t of a sample has the value 10 · t."""

    def __init__(self, counts):
        self.ids = [str(count) for count in counts]
        self.labels = np.zeros(len(counts), np.int64)
        self.counts = counts

    def __len__(self):
        return len(self.counts)

    def frames(self, modality, row):
        return [encode_jpeg(np.full((8, 8, 3), 10 * t, np.uint8)) for t in range(self.counts[row])]

    def frame(self, modality, row, index):
        return bytearray(self.frames(modality, row)[index])

    def holders(self, modality):
        return np.arange(len(self))

    def lengths(self, modality):
        return np.array(self.counts)

    def dtype(self, modality):
        return np.dtype(np.int16)

    def array(self, modality, row):
        return np.arange(self.counts[row], dtype=np.int16)


def stacked(frames):
    batch, count = frames.shape[:2]
    pictures = [[frames.picture((sample, frame)) for frame in range(count)] for sample in range(batch)]
    return torch.stack([torch.stack(sample) for sample in pictures])


def chosen(counts, count, choice, draws=None):
    column = FramesColumn(FakeSplit(counts), "visual", (8, 8, 3), count, choice)
    pictures = stacked(column.batch(np.arange(len(counts)), draws))
    return (pictures[:, :, 0, 0, 0].float() / 10).round().int().tolist()


def test_frames_by_hand():
    assert chosen([5, 10, 1], 3, "first-middle-last") == [[0, 2, 4], [0, 4, 9], [0, 0, 0]]
    assert chosen([9, 3, 2], 3, "uniform") == [[1, 4, 7], [0, 1, 2], [0, 1, 1]]
    assert chosen([9], 1, "uniform") == [[4]]
    assert chosen([9], 1, "first-middle-last") == [[4]]
    assert chosen([9], 1, "random") == [[4]]  # in evaluation nothing is random
    for draws in (None, RandomStreams(0)):
        assert chosen([5, 2, 1], 3, "from-start", draws) == [[0, 1, 2], [0, 1, 1], [0, 0, 0]]


@settings(max_examples=25, deadline=None)
@given(
    stored=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    count=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_random_frames_are_distinct_as_far_as_they_suffice_and_in_order(stored, count, seed):
    found = chosen(stored, count, "random", RandomStreams(seed))
    assert found == chosen(stored, count, "random", RandomStreams(seed))
    for frames, available in zip(found, stored, strict=True):
        assert frames == sorted(frames) and frames[0] >= 0 and frames[-1] < available
        assert len(set(frames)) == min(count, available)


@settings(max_examples=25, deadline=None)
@given(
    stored=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    count=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_segments_give_a_frame_of_each_part(stored, count, seed):
    found = chosen(stored, count, "segments", RandomStreams(seed))
    assert found == chosen(stored, count, "segments", RandomStreams(seed))
    for frames, available in zip(found, stored, strict=True):
        for part, frame in enumerate(frames):
            first, end = part * available / count, (part + 1) * available / count
            assert first - 1 < frame < end and 0 <= frame < available
    assert chosen(stored, count, "segments") == chosen(stored, count, "uniform")  # evaluation: their middles


def test_segments_draw_each_frame_as_often_whatever_the_part_of_the_batch():
    found = [chosen([6, 6], 2, "segments", RandomStreams(0, 0, step)) for step in range(300)]
    for part, first in ((0, 0), (1, 3)):
        counts = np.bincount([clip[part] for clips in found for clip in clips], minlength=6)
        assert counts[first : first + 3] / 600 == pytest.approx([1 / 3] * 3, abs=0.07)
    mine = [chosen([6], 2, "segments", RandomStreams(0, 0, step, batch=2, first=1)) for step in range(300)]
    assert mine == [clips[1:] for clips in found]


def test_each_frame_is_drawn_as_often():
    found = [chosen([3], 1, "random", RandomStreams(0, 0, step))[0][0] for step in range(600)]
    assert np.bincount(found, minlength=3) / 600 == pytest.approx([1 / 3] * 3, abs=0.07)


def test_a_short_waveform_is_repeated_and_a_long_one_cut():
    column = NumbersColumn(FakeSplit([3, 9]), "audio", (7,), repeat=True)
    assert column.batch(np.array([0, 1]), None).tolist() == [[0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5, 6]]


def split_of(tmp_path, kinds, rows):
    path = tmp_path / "a.arrow"
    store.write_shard(path, [{"id": str(i), "label": 0, **row} for i, row in enumerate(rows)], kinds)
    return store.PreparedSplit(pa.ipc.open_file(str(path)).read_all())


@pytest.mark.parametrize("resident", [False, True])
def test_feature_sequences_are_filled_with_zeros_and_cut(tmp_path, resident):
    kinds = {"text": {"kind": "features", "length": 3, "width": 2}}
    rows = [{"text": np.full((steps, 2), steps, np.float32)} for steps in (1, 5)] + [{"text": None}]
    column = NumbersColumn(split_of(tmp_path, kinds, rows), "text", (3, 2), repeat=False)
    assert column.size(ready=True) == 2 * 3 * 2 * 4  # what two rows share is held once
    if resident:
        column.hold(CPU, ready=True)
    batch = column.batch(np.array([2, 0]), None)
    assert batch.dtype == torch.float32 and batch.tolist() == [[[5, 5]] * 3, [[1, 1], [0, 0], [0, 0]]]


@pytest.mark.parametrize("resident", [False, True])
def test_flow_frames_have_two_channels_and_shared_ones_are_held_once(tmp_path, resident):
    kinds = {"flow": {"kind": "frames", "height": 8, "width": 16, "fps": 1.0, "channels": 2}}
    u, v = np.full((8, 16), 40, np.uint8), np.full((8, 16), 200, np.uint8)
    frames = [encode_jpeg(np.stack([u + k, v - k], 2)) for k in (0, 20)]
    rows = [{"flow": frames}, {"flow": None}, {"flow": frames[::-1]}]
    column = FramesColumn(split_of(tmp_path, kinds, rows), "flow", (8, 16, 2), 2, "uniform")
    assert column.size(ready=True) == 4 * 8 * 16 * 2
    if resident:
        column.hold(CPU, ready=True)
    batch = stacked(column.batch(np.array([1, 2]), None))
    assert batch.shape == (2, 2, 8, 16, 2)
    assert batch[:, :, 4, 4].tolist() == [[[40, 200], [60, 180]], [[60, 180], [40, 200]]]


def test_resident_without_the_memory_says_what_to_do(prepared, monkeypatch):
    monkeypatch.setattr(loading, "free_memory", lambda: 1000)
    with pytest.raises(InputError, match="Use --loading streaming"):
        make_resident([source_of(prepared)], "resident")
    assert make_resident([source_of(prepared)], "auto").startswith("Streaming")


def test_runs_beside_each_other_share_the_memory(prepared, monkeypatch):
    """What fits alone need not fit beside three others, whichever of them decodes first."""
    source = source_of(prepared)
    needed = source.size(ready=False)
    monkeypatch.setattr(loading, "free_memory", lambda: 4 * needed)
    assert Room.of_each(4, gpus=2) == Room(needed, 0.5) and Room.of_each(3, gpus=0).gpu == 1 / 3
    assert make_resident([source], "auto", room=Room.of_each(4, 0)).startswith("Streaming")
    assert make_resident([source], "auto", room=Room.of_each(1, 0)).startswith("Resident")


def test_free_memory_is_plausible():
    assert 2**26 < free_memory() < 2**46
