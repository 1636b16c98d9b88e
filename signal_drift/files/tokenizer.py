"""Makes the tokenizer of a model, one of the package tokenizers: `.encode(text).ids`, `.decode(ids)`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown
from signal_drift.files.gguf_file import GgufFile, open_gguf
from signal_drift.files.tensors import file_in

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
CONTROL, USER_DEFINED = 3, 4
"""The types of tokens in a GGUF file that are found in a text before it is split."""


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Load the tokenizer.json of a Hugging Face folder.

    Needs the `minilm` or the `smollm` extra. Raises `InputError` where there is no such file, and for a damaged one.
    """
    from tokenizers import Tokenizer

    path = file_in(Path(folder), TOKENIZER)
    if path is None:
        raise InputError(f"folder: {shown(str(folder))} has no {TOKENIZER}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises no narrower one
        raise InputError(f"{TOKENIZER}: cannot be read ({printable(str(error))[:200]})") from None


def gguf_tokenizer(file: str | Path | GgufFile) -> Tokenizer:
    """Make the byte-level BPE whose vocabulary and merges are in a GGUF file, a path or what `open_gguf` returned.

    A text is split as GPT-2 splits it, and with SmolLM's rule before that into single digits. Needs the `smollm` extra.
    Raises `InputError` for a vocabulary of another kind, for another rule, and for a damaged file.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    file = file if isinstance(file, GgufFile) else open_gguf(file)
    digits: list[Any] = [pre_tokenizers.Digits(individual_digits=True)]
    rules = {"smollm": digits, "gpt-2": []}
    kind, rule = file.field("tokenizer.ggml.model", str), file.field("tokenizer.ggml.pre", str, "gpt-2")
    if kind != "gpt2" or rule not in rules:
        raise InputError(
            f"{file.label}: its tokenizer must be 'gpt2', a byte-level BPE, with one of the rules {list(rules)}, got "
            f"{shown(kind)}, {shown(rule)}"
        )
    tokens = file.field("tokenizer.ggml.tokens", list)
    types = file.field("tokenizer.ggml.token_type", list, [1] * len(tokens))
    merges: Any = [tuple(merge.split(" ")) for merge in file.field("tokenizer.ggml.merges", list)]
    if len(types) != len(tokens):
        raise InputError(f"{file.label}: has {len(tokens)} tokens and {len(types)} types of them")
    try:
        found = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    except Exception as error:  # the package raises no narrower one
        raise InputError(f"{file.label}: its merges make no tokenizer ({printable(str(error))[:200]})") from None
    found.pre_tokenizer = pre_tokenizers.Sequence([*rules[rule], pre_tokenizers.ByteLevel(add_prefix_space=False)])
    found.decoder = decoders.ByteLevel()
    whole = [
        AddedToken(t, special=k == CONTROL, normalized=False)
        for t, k in zip(tokens, types, strict=True)
        if k in (CONTROL, USER_DEFINED)
    ]
    found.add_tokens(whole)
    return found
