"""Reads GGUF files, the form in which llama.cpp keeps models: what they say of the model, and tensors in float32."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown

READ = "F32, F16, BF16 and the quantisations that the package gguf has a rule for (Q4_0 to Q8_0, Q2_K to Q6_K, IQ…)"


@dataclass(frozen=True, repr=False)
class GgufFile:
    """Knows the fields and the tensors of a file."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, Any]

    def field(self, name: str, kind: type, default: Any = None) -> Any:
        """Return what the file says under a name, a number, a string, a bool or a list.

        Raises `InputError` for what is of another kind, and for what is not there unless `default` is given.
        """
        if name not in self.fields:
            if default is None:
                raise InputError(f"{self.label}: has no field {shown(name)}")
            return default
        value = self.fields[name].contents()
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(f"{self.label}: {name} must be of type {kind.__name__}, got {shown(value)}")
        return value

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, the axis of the inputs of a matrix last as in y = W x."""
        return tuple(int(n) for n in reversed(self.tensors[name].shape))

    def tensor(self, name: str) -> np.ndarray:
        """Read one tensor in float32; raise `InputError` for a quantisation that cannot be undone."""
        from gguf.quants import dequantize

        stored = self.tensors[name]
        try:
            return np.asarray(dequantize(stored.data, stored.tensor_type), np.float32).reshape(self.shape(name))
        except NotImplementedError:
            kind = stored.tensor_type.name
            raise InputError(
                f"{self.label}: {shown(name)} is stored as {kind}, which is not read; read are {READ}"
            ) from None

    @property
    def label(self) -> str:
        """Return the name of the file."""
        return printable(self.path.name)


def open_gguf(path: str | Path) -> GgufFile:
    """Open a GGUF file; tensors are read when they are asked for.

    Needs the `smollm` extra. Raises `InputError` for a file that is not there, that is none, and for a truncated one.
    """
    path = Path(path)
    try:
        from gguf import GGUFReader
    except ImportError:
        raise InputError("path: a GGUF file needs the package gguf; pip install 'signal-drift[smollm]'") from None
    try:
        reader = GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError, OverflowError, MemoryError) as error:
        reason = f"{type(error).__name__}: {printable(str(error))[:200]}"
        raise InputError(f"{printable(path.name)}: is damaged or no GGUF file ({reason})") from None
    return GgufFile(path, dict(reader.fields), {x.name: x for x in reader.tensors})
