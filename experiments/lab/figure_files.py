"""Keep figures as files: drawn from stored values, and again only where those or the code that draws them changed."""

import hashlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

from experiments.lab.files import replacing
from signal_drift import plotting

Drawing = Callable[[], Figure]
"""A figure that is drawn only where it is not there already."""


def fingerprint(data: xr.Dataset, draw: Drawing) -> str:
    """Digest the stored values and the code that draws them: the module of `draw` and the style of all figures."""
    content = hashlib.sha256()
    for name in sorted(map(str, data.variables)):
        values = data[name].values
        content.update(name.encode())
        content.update((values.astype(str) if values.dtype == object else values).tobytes())
    function = draw.func if isinstance(draw, partial) else draw
    for module in (sys.modules[function.__module__], plotting):
        content.update(inspect.getsource(module).encode())
    return content.hexdigest()[:16]


def is_drawn(stem: Path, metadata: dict[str, str]) -> bool:
    """Tell whether all three files are there, and the PNG, which is written last, carries this metadata."""
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("svg", "pdf", "png")]
    if not all(file.exists() for file in files):
        return False
    try:
        with Image.open(files[-1]) as image:
            return metadata.items() <= image.info.items()
    except OSError:
        return False


def save_figure(figure: Figure, stem: Path, metadata: dict[str, str]) -> None:
    """Write `stem`.png, .svg and .pdf, the first carrying `metadata`."""
    with mpl.rc_context(plotting.STYLE):
        for suffix in ("svg", "pdf", "png"):
            plain = {"Date": None} if suffix == "svg" else {"CreationDate": None} if suffix == "pdf" else metadata
            with replacing(stem.with_name(f"{stem.name}.{suffix}")) as temporary:
                figure.savefig(temporary, format=suffix, metadata=plain)
