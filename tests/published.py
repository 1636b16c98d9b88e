"""Rated text and an encoder on disk, as others published them, small and with known content."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from signal_drift.tasks.rated_text import DOMAINS

SIZES = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def published(path: Path, domains: dict[str, str]) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for domain, text in domains.items():
            add(archive, f"hutto_ICWSM_2014/{DOMAINS[domain]}_GroundTruth.txt", text.encode())
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    return path


def tensors() -> dict[str, np.ndarray]:
    """Weights by the names of `transformers`, in float64."""
    draws, d, h = np.random.default_rng(0), SIZES["hidden_size"], SIZES["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (11, d),
        "embeddings.position_embeddings.weight": (7, d),
        "embeddings.token_type_embeddings.weight": (2, d),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(2):
        at = f"encoder.layer.{i}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{at}.{name}.weight": (d, d), f"{at}.{name}.bias": (d,)}
        shapes |= {f"{at}.intermediate.dense.weight": (h, d), f"{at}.intermediate.dense.bias": (h,)}
        shapes |= {f"{at}.output.dense.weight": (d, h), f"{at}.output.dense.bias": (d,)}
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
    shapes |= {f"{name}.{part}": (d,) for name in norms for part in ("weight", "bias")}
    return {name: draws.standard_normal(shape) for name, shape in shapes.items()}


def encoder(folder: Path) -> Path:
    """A BERT in Hugging Face's form, with the pooler that nobody needs."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SIZES), encoding="utf-8")
    save_file(tensors() | {"pooler.dense.weight": np.ones((8, 8))}, folder / "model.safetensors")
    return folder


def tokenizer(folder: Path, words: list[str]) -> None:
    """One token for each word, after the two for padding and for what is unknown. Needs the `minilm` extra."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    numbers = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}
    found = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.save(str(folder / "tokenizer.json"))
