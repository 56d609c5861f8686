"""The interface of a data set: what it is called, where its media and lists are, and the plan of its samples."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.data.datasets.published import Published


class Dataset(ABC):
    """A data set. The first line of a subclass's docstring says what it is, for `bmm list datasets`.

    `HOW_TO_GET` says in a sentence or two which files to get from where. `OPTIONS` are the data set's own options,
    the values of each with the default first, `SETTINGS` the names of those that take any value, which `plan` checks;
    `plan` takes both by name. `SPLIT_NAMES` are the names of its splits, of which a plan has one: numbers of two
    splits are never compared. `EMBEDDED` data need no files of the user's: they are made here, or come with a package
    that is installed.
    `PUBLISHED` says whether somebody published the media, so that they can be compared with what was published.
    """

    name: ClassVar[str]
    HOW_TO_GET: ClassVar[str]
    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    SETTINGS: ClassVar[frozenset[str]] = frozenset()
    SPLIT_NAMES: ClassVar[tuple[str, ...]] = ("official",)
    EMBEDDED: ClassVar[bool] = False
    PUBLISHED: ClassVar[bool] = True

    @property
    def usual_source(self) -> Path:
        """Where the media are looked for when nobody names a place."""
        return Path("data/raw") / self.name

    @abstractmethod
    def plan(
        self,
        source: Path,
        splits: Path | None,
        allow_missing: bool,
        *args: Any,  # noqa: ANN401 - a subclass names its options here
        **options: Any,  # noqa: ANN401
    ) -> Plan:
        """The samples whose media lie in `source`, by the lists in `splits`, under the data set's own options.

        InputError for absent media or lists, and for other lists than the official ones unless `allow_missing`, which
        takes them, notes it, and leaves missing files to `prepare`. UsageError for lists that it has no use for.
        """

    def official_files(self, source: Path, plan: Plan) -> Published | None:
        """What the source published of the files of a plan; None where it publishes no hashes of them.

        InputError where what it published is not here.
        """
        return None
