"""Errors that a user can act on. Each carries one or two sentences and the exit status of the program."""

import difflib
import errno
from collections.abc import Iterable, Sequence

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST = 500  # signs of another program's text that are kept


class BmmError(Exception):
    """An error shown to the user as its message alone: what is wrong, where, and what to do."""

    exit_status = 1


class UsageError(BmmError):
    """The command line, a recipe or a suite asks for something that does not exist or makes no sense."""

    exit_status = 2


class InputError(BmmError):
    """A file, a folder or the machine is not what the command needs."""

    exit_status = 3


class CheckError(BmmError):
    """Numbers were not reproduced."""

    exit_status = 4


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; its state is kept."""


class OfFirstProcess(BmmError):
    """An end that the first process of a run explains; the others end with the same status and say nothing."""

    def __init__(self, exit_status: int) -> None:
        super().__init__("The first process says why.")
        self.exit_status = exit_status


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> UsageError:
    """A UsageError for a name that is not in `known`: the nearest name, and all of them where they are few. `where`
    stands behind the name."""
    names = sorted(known)
    near = _nearest(name, names)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listing = f" Known: {', '.join(names)}." if len(names) <= 20 or not near else ""
    return UsageError(f"There is no {kind} '{name}'{where}.{hint}{listing}")


def _nearest(name: str, names: Sequence[str]) -> list[str]:
    """The name that was most likely meant, if any: the same but for capitals, the end of a dotted one, or a misspelt
    one."""
    lower = {known.lower(): known for known in names}
    ends = [known for known in names if known.endswith(f".{name}")]
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return [lower[name.lower()]] if name.lower() in lower else (ends or [lower[one] for one in close])[:1]


def plain(text: str) -> str:
    """The first line of a text of another program, without what would control a terminal, and not too long."""
    first = next((line for line in text.splitlines() if line.strip()), "").strip()
    return "".join(sign for sign in first[:LONGEST] if sign.isprintable())


def said_by(error: BaseException) -> str:
    """What an error of other code says of itself, as `plain`; its type where it says nothing."""
    return plain(str(error)) or type(error).__name__


def sentence(text: str) -> str:
    """A text with a full stop, unless it ends as a sentence does."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def first_of(lines: Sequence[str], count: int = 1) -> str:
    """The first of several reasons, or the first few, and how many more there are."""
    more = f" (and {len(lines) - count} more)" if len(lines) > count else ""
    return f"{' '.join(lines[:count])}{more}"


def os_error_sentence(error: OSError) -> str:
    """What to tell a user about an error of the file system."""
    if error.errno in DISK_FULL:
        where = f" for {error.filename}" if error.filename else ""
        return f"No space left on the disk{where}. Free some, then run the same command to go on."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission for {error.filename}. Change its rights or name another folder."
    return (
        f"{error.filename or 'The system'}: {error.strerror or error}. Check the path, or name another one."
    )
