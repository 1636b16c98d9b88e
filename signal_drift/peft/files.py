"""Reads LoRA adapters as they are stored, one layer at a time: safetensors, never a pickle."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signal_drift.display import Table, displayed_as
from signal_drift.errors.words import printable
from signal_drift.files.tensors import read_tensor
from signal_drift.peft.config import LoraConfig
from signal_drift.peft.layouts import Layout, find_layout
from signal_drift.peft.maps import StoredLayer, factors


@dataclass(frozen=True, repr=False)
class AdapterFiles:
    """Knows an adapter on disk: how it is laid out, its configuration, and where each layer's factors are."""

    folder: Path
    layout: Layout

    @property
    def config(self) -> LoraConfig:
        """Return the settings; those of a layer may be its own where they are not PEFT's."""
        return self.layout.config

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what lies beside the factors."""
        return self.layout.notes

    def layers(self) -> Iterator[StoredLayer]:
        """Read layer by layer, in the order of their names; raise `InputError` for one that does not fit."""
        for place in self.layout.places:
            A, B = (read_tensor(key, self.layout.tensors[key]) for key in (place.A, place.B))
            turned = self.layout.transposed and A.ndim == B.ndim == 2  # experts of mlx are not
            yield from factors(place, A.T, B.T) if turned else factors(place, A, B)


def open_adapter(folder: str | Path) -> AdapterFiles:
    """Open an adapter stored in `folder`: by PEFT, mlx, diffusers or kohya; only headers are read.

    Raises `InputError` for a folder that is none, for pickled weights, which are never opened, for a damaged file,
    for a link that leads out of the folder, for a layer with one factor, and for a setting that has no formula.
    """
    folder = Path(folder)
    return AdapterFiles(folder, find_layout(folder))


def _table(x: AdapterFiles) -> Table:
    c = x.config
    scale = (
        f"r {c.r}, lora_alpha {c.lora_alpha:g}{', rsLoRA' if c.use_rslora else ''}, initialised "
        f"{printable(str(c.init_lora_weights))}"
    )
    kind = {"PEFT": scale, "mlx": f"mlx, {scale}"}.get(x.layout.name, x.layout.name)
    return Table(f"AdapterFiles({x.folder.name!r}): {len(x.layout.places)} layers, {kind}")


displayed_as(_table)(AdapterFiles)
