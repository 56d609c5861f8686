"""What a shell or a terminal may lack: signs that its encoding has not, and a home folder that it did not expand."""

import codecs
import io
import os
import re
import sys

PLAIN = {
    "±": "+-",
    "ρ": "rho",
    "Δ": "D",
    "—": "-",
    "–": "-",
    "−": "-",
    "†": "*",
    "×": "x",
    "…": "...",
    "✓": "yes",
    "↑": "up",
    "↓": "down",
    "≠": "/=",
    "─": "-",
    "━": "-",
    "•": "*",
}
"""Signs of ours in ASCII."""


def prepare_streams() -> None:
    """Let standard output and standard error write what their encoding lacks as near as ASCII comes to it.

    What goes to one that the shell closed is lost.
    """
    codecs.register_error("plain", _plain)
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign, "?") for sign in lacking), error.end


def expand_home(arguments: list[str]) -> list[str]:
    """Arguments with the home folder for the ~ of `--out=~/x`, which shells leave as it is."""
    return [
        re.sub("^(--[a-z-]+=)(~.*)", lambda found: found[1] + os.path.expanduser(found[2]), one)
        for one in arguments
    ]
