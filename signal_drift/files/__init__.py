"""Open this to read files that others made: JSON and safetensors, a Hugging Face folder, GGUF, a tokenizer.

What is read is checked, and nothing in it is run. `InputError` says in one line what is wrong with a file.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> import numpy as np
>>> from safetensors.numpy import save_file
>>> with TemporaryDirectory() as folder:
...     save_file({"layer.weight": np.ones((2, 3), np.float16)}, f"{folder}/model.safetensors")
...     (tensor,) = find_weights(Path(folder)).values()
...     tensor.shape, read_tensor("layer.weight", tensor).dtype
((2, 3), dtype('float32'))
"""

from signal_drift.files.gguf_file import GgufFile, open_gguf
from signal_drift.files.hugging_face import find_weights, read_config
from signal_drift.files.tensors import Stored, parse_json, read_json, read_stored, read_tensor
from signal_drift.files.tokenizer import gguf_tokenizer, load_tokenizer

__all__ = [
    "GgufFile",
    "Stored",
    "find_weights",
    "gguf_tokenizer",
    "load_tokenizer",
    "open_gguf",
    "parse_json",
    "read_config",
    "read_json",
    "read_stored",
    "read_tensor",
]
