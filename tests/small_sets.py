"""Few samples of each built-in data set that writes its own media."""

COUNTS = {
    "synthetic": {"train": 48, "test": 24},
    "synthetic-ave": {"train": 56, "val": 4, "test": 8},
    "synthetic-music-avqa": {"train": 36, "val": 1, "test": 2},
    "synthetic-cmu-mosi": {"train": 40, "valid": 8, "test": 16},
    "synthetic-ucf-101-three": {"train": 24, "test": 12},
}
