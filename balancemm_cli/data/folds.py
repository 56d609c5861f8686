"""The names of folds among the splits of a set: fold-1, fold-2, …"""

_BEGIN = "fold-"


def fold_name(number: int) -> str:
    """The name of a fold, from 1."""
    return f"{_BEGIN}{number}"


def is_fold(split: str) -> bool:
    """Whether a split is a fold."""
    return split.startswith(_BEGIN)
