"""Methods, models and data sets of other installed packages, which announce them as entry points."""

from importlib.metadata import entry_points
from typing import Any

from balancemm_cli.errors import InputError


def extensions(group: str) -> dict[str, Any]:
    """The classes of an entry-point group, "bmm.methods", "bmm.models" or "bmm.datasets", by name.

    InputError where one can't be imported.
    """
    found = {}
    for point in entry_points(group=group):
        try:
            found[point.name] = point.load()
        except Exception as error:  # whatever the other package's module raises
            package = point.dist.name if point.dist else "another package"
            raise InputError(
                f"'{point.name}' ({group}) of {package} can't be imported: {error}. Mend or uninstall it."
            ) from error
    return found
