"""What every kind of modality keeps, and that a new one is one class: nothing else knows which kinds there are."""

import re
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import write_csv, write_video
from small_training import train_and_evaluate

import balancemm_cli
from balancemm_cli.config.recipe import Recipe
from balancemm_cli.data import store
from balancemm_cli.data.kinds import KINDS, kind_of
from balancemm_cli.data.kinds.base import Sequence
from balancemm_cli.data.loading import make_resident
from balancemm_cli.data.preparing import prepare
from balancemm_cli.data.preparing.estimate import dry_run
from balancemm_cli.data.preparing.preview import write_preview
from balancemm_cli.data.reading.media import MediaError, encode_jpeg
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.models.encoders import Choice, make_encoders
from balancemm_cli.shapes import SequenceShape
from balancemm_cli.testing.sets import finish

PACKAGE = Path(balancemm_cli.__file__).parent
CPU = torch.device("cpu")


class Series(Sequence):
    """A kind that the program does not have: sensors that are read at a fixed rate, in a table of numbers."""

    name = "series"
    stored = "float32"
    word = "series"
    extensions = frozenset({".tsv"})
    usual: ClassVar = {"kind": "series", "rate": 4.0, "length": 8, "sensors": 2}

    def describe(self):
        return f"{self.spec['sensors']} sensors, {self.rate:g} Hz"

    @property
    def rate(self):
        return self.spec["rate"]

    @property
    def step(self):
        return (self.spec["sensors"],)

    def decode(self, path, start, end, waived):
        first, last = (None if moment is None else round(moment * self.rate) for moment in (start, end))
        try:
            return np.loadtxt(path, np.float32, ndmin=2)[first:last]
        except ValueError as error:  # else one such file would end the preparation
            raise MediaError("unreadable", str(error)) from None

    def draw(self, value):
        return kind_of({"kind": "features", "length": 8, "width": self.spec["sensors"]}).draw(value)

    @property
    def shape(self):
        return SequenceShape(self.spec["length"], width=self.spec["sensors"])


@pytest.fixture(autouse=True)
def with_series(monkeypatch):
    monkeypatch.setitem(KINDS, "series", Series)


def arrays(dtype, elements, *step):
    """Arrays [T, *step]."""
    size = int(np.prod(step))
    rows = st.lists(st.lists(elements, min_size=size, max_size=size), min_size=1, max_size=9)
    return rows.map(lambda values: np.array(values, dtype).reshape(-1, *step))


def pictures(height, width, channels):
    level = st.integers(0, 255)
    files = level.map(lambda grey: encode_jpeg(np.full((height, width, channels), grey, np.uint8)))
    return st.lists(files, min_size=1, max_size=4)


FLOATS = st.floats(-1e6, 1e6, width=32)
FRAMES = {"kind": "frames", "height": 32, "width": 40, "fps": 1.0, "channels": 3}
FLOW = {**FRAMES, "channels": 2, "content": "flow", "source": "computed dis"}
MAPS = {"kind": "features", "length": 5, "width": 3, "positions": 2}
TOKENS = {"kind": "tokens", "length": 5, "words": ["<pad>", "is", "it"]}
EXAMPLES = {
    "waveform": ({"kind": "waveform", "rate": 8000}, arrays("int16", st.integers(-(2**15), 2**15 - 1))),
    "frames": (FRAMES, pictures(32, 40, 3)),
    "flow": (FLOW, pictures(32, 40, 2)),
    "features": ({"kind": "features", "length": 5, "width": 3}, arrays("float32", FLOATS, 3)),
    "maps": (MAPS, arrays("float32", FLOATS, 2, 3)),
    "tokens": (TOKENS, arrays("int32", st.integers(0, 2))),
    "series": (Series.usual, arrays("float32", FLOATS, 2)),
}
"""For each kind a spec, and a strategy of values; add one for a new kind."""

WRONG = {
    "waveform": [np.zeros(3, np.float32), [1, 2]],
    "frames": [[1, 2], b"one file", np.zeros(3, np.uint8)],
    "flow": [["not bytes"]],
    "features": [np.zeros((2, 3)), np.zeros((3, 2), np.float32), np.zeros(4, np.float32)],
    "maps": [np.zeros((3, 2), np.float32), np.zeros((1, 3), np.float32)],
    "tokens": [np.array([1, 3], np.int32), np.array([-1], np.int32), np.array([1])],
    "series": [np.zeros((2, 2))],
}


def test_every_kind_has_examples():
    assert {spec["kind"] for spec, _ in EXAMPLES.values()} == set(KINDS) and set(WRONG) == set(EXAMPLES)
    assert [kind.name for kind in KINDS.values()] == list(KINDS)


def write(folder, name, values):
    spec, _ = EXAMPLES[name]
    rows = [{"id": str(place), "label": 0, "m": value} for place, value in enumerate(values)]
    store.write_shard(folder / "train-00000.arrow", rows, {"m": spec})
    return finish(folder, "examples", {"m": spec}, {}, {"train": len(rows)})


def same(one, two):
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and np.array_equal(one, two)
    return type(one) is type(two) and one == two


@pytest.mark.parametrize("name", EXAMPLES)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_what_is_written_comes_back(name, data):
    """Also where a row has the value of the one above, which is stored once."""
    spec, values = EXAMPLES[name]
    kind = kind_of(spec)
    written = [data.draw(values), *data.draw(st.lists(st.none() | values, max_size=4))]
    with tempfile.TemporaryDirectory() as folder:
        split = write(Path(folder), name, written).split("train")
        stored = pa.ipc.open_file(pa.memory_map(f"{folder}/train-00000.arrow")).read_all()["m"]
        assert stored.type == pa.list_(pa.type_for_alias(kind.stored))
        assert stored.null_count == sum(value is None for value in written)
        above = None
        for place, (value, holder) in enumerate(zip(written, split.holders("m"), strict=True)):
            above = above if value is None else value
            assert (holder == place) == (value is not None)
            assert same(kind.read(split, "m", int(holder)), above)
            assert kind.bytes_of(above) > 0


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, of in WRONG.items() for value in of])
def test_what_is_not_of_the_kind_is_refused(name, value, tmp_path):
    with pytest.raises(InputError, match=r"^Sample '0': its m (is|has) .*\. Correct what .* reads\.$"):
        write(tmp_path, name, [value])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_described_and_estimated(name):
    kind = kind_of(EXAMPLES[name][0])
    described = [kind_of(spec).describe() for spec, _ in EXAMPLES.values()]
    assert described.count(kind.describe()) == 1 and "\n" not in kind.describe()
    for seconds in (1.0, 100.0):
        assert kind.expected_bytes(seconds) > 0 and kind.decoding_seconds(seconds) >= 0
    assert kind.expected_bytes(100.0) >= kind.expected_bytes(1.0)
    if kind.word:
        page = (PACKAGE.parent / "docs" / "datasets" / "manifest.md").read_text("utf-8")
        assert kind.name == "series" or f"`name:{kind.word}`" in page
        assert kind_of(kind.usual).rate > 0


@pytest.mark.parametrize("name", EXAMPLES)
@settings(max_examples=2, deadline=None)
@given(st.data())
def test_it_is_drawn_and_reaches_an_encoder(name, data):
    """Resident and streaming alike; the encoder is the one that its shape asks for."""
    spec, values = EXAMPLES[name]
    written = data.draw(st.lists(values, min_size=2, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        prepared = write(Path(folder), name, written)
        strip = kind_of(spec).draw(written[0])
        assert strip.picture.width > 0 and strip.notes
        inputs = Inputs(prepared, ["m"], Recipe.model_validate({"frames": {"size": 32}}))
        batches = []
        for loading in ("streaming", "resident"):
            source = inputs.source(prepared.split("train"))
            make_resident([source], loading)
            ((raw, _),) = source.batches([np.arange(len(written))], [None], CPU)
            batches.append(inputs(raw)["m"])
        assert torch.equal(*batches)
        encoder = make_encoders(Choice("small"), inputs.shapes)["m"]
        assert encoder(batches[0]).shape == (len(written), encoder.features)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_cut_into_seconds_or_refuses(name, tmp_path):
    """Of ten labels a clip: with the settings that it names the parts are these; else a sentence says why not."""
    spec, _ = EXAMPLES[name]
    spec = {**spec, "length": 10} if "length" in spec else spec
    kind = kind_of(spec)
    needed = kind.settings_for_parts(10)
    sections = {kind.name: needed} if needed else {}
    recipe = Recipe.model_validate({"task": "localisation", **sections})
    prepared = finish(tmp_path, "ten", {"m": spec}, {"segments": "integers"}, {})
    if needed is None:
        with pytest.raises(UsageError, match="can't be cut so"):
            Inputs(prepared, ["m"], recipe)
    else:
        assert kind.time_axis is not None and Inputs(prepared, ["m"], recipe).shapes["m"].count == 10


def test_an_unknown_kind_is_named():
    with pytest.raises(InputError, match="of the kind 'smell', which this version does not know"):
        kind_of({"kind": "smell"})


def test_a_new_kind_is_one_class(tmp_path, monkeypatch):
    """From a user's CSV to a trained and evaluated run, with Series known by its line in KINDS alone."""
    generator = np.random.default_rng(0)
    lines = []
    for index in range(16):
        write_video(tmp_path / f"{index}.mkv", [40 + index % 2 * 100] * 5)
        np.savetxt(tmp_path / f"{index}.tsv", index % 2 + generator.normal(size=(4 + index % 3, 2)))
        split = "train" if index < 10 else "test"
        lines.append(f"{index},{'ab'[index % 2]},{split},{index}.tsv,{index}.tsv,{index}.mkv")
    table = write_csv(tmp_path / "mine.csv", "id,label,split,wrist,ankle:series,visual", *lines)
    request = prepare.Request("manifest", table, out=tmp_path / "prepared" / "mine")
    said = dry_run(request)
    assert "  wrist: 2 sensors, 4 Hz" in said and "  ankle: 2 sensors, 4 Hz" in said
    # in this process, where the kind is known
    monkeypatch.setattr(prepare, "run", lambda function, tasks, *_: [function(task) for task in tasks])
    prepared = store.open_set(prepare.prepare_folder(request))
    assert prepared.modalities["wrist"] == Series.usual and prepared.counts == {"train": 10, "test": 6}
    assert len(list(write_preview(prepared).iterdir())) == 2
    train_and_evaluate(prepared, tmp_path / "runs")


ASKS = re.compile(rf"""(spec|modalit)\w*(\[\w+\])?\["kind"\]|([!=]=|case) "({"|".join(KINDS)})\"""")


def test_no_other_file_asks_which_kind_it_is():
    found = [
        f"{file.relative_to(PACKAGE)}: {line.strip()}"
        for file in PACKAGE.rglob("*.py")
        if PACKAGE / "data" / "kinds" not in file.parents
        for line in file.read_text("utf-8").splitlines()
        if ASKS.search(line)
    ]
    assert not found
