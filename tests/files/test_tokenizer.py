"""Tokenizers from a GGUF file and from tokenizer.json: a small byte-level BPE whose tokens are known."""

from pathlib import Path
from typing import Any

import pytest
from llamas import CONFIGS, gguf
from problems import rejects

from signal_drift.files import gguf_tokenizer, load_tokenizer

pytest.importorskip("gguf", reason="needs the extra smollm")
pytest.importorskip("tokenizers", reason="needs the extra smollm")

LETTERS = [*"abt12+", "Ġ", "Ċ", "Ã", "©"]
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS, "ab", "Ġa", "Ġab", "12", "Ã©"]
BPE: dict[str, Any] = {
    "pre": "smollm",
    "tokens": TOKENS,
    "types": [3] * 3 + [1] * (len(TOKENS) - 3),
    "merges": ["a b", "Ġ a", "Ġ ab", "1 2", "Ã ©"],
}
TEXT = "<|im_start|>ab ab\n12+2é<|im_end|>"


def tokens_of(path: Path, text: str = TEXT) -> list[str]:
    found = gguf_tokenizer(path).encode(text)
    assert [TOKENS[i] for i in found.ids] == found.tokens
    return found.tokens


def made(folder: Path, **fields: Any) -> Path:
    return gguf(folder / "model.gguf", CONFIGS["tied"], **BPE | fields)


def test_a_text_is_split_into_merged_bytes_single_digits_and_special_tokens(tmp_path: Path) -> None:
    wanted = ["<|im_start|>", "ab", "Ġab", "Ċ", "1", "2", "+", "2", "Ã©", "<|im_end|>"]
    assert tokens_of(made(tmp_path)) == wanted


def test_without_the_rule_for_digits_they_merge(tmp_path: Path) -> None:
    """Control: the rule of GPT-2."""
    assert tokens_of(made(tmp_path, pre="gpt-2"), "12") == ["12"]
    assert tokens_of(made(tmp_path), "12") == ["1", "2"]


def test_a_special_token_is_one_only_where_the_file_says_so(tmp_path: Path) -> None:
    path = made(tmp_path, types=[1] * len(TOKENS))
    assert "<|im_end|>" not in tokens_of(path, "ab<|im_end|>")


def test_decoding_gives_the_text_back(tmp_path: Path) -> None:
    found = gguf_tokenizer(made(tmp_path))
    ids = found.encode(TEXT).ids
    assert found.decode(ids, skip_special_tokens=False) == TEXT
    assert found.decode(ids) == "ab ab\n12+2é"


def test_a_folder_has_the_same_tokenizer(tmp_path: Path) -> None:
    found = gguf_tokenizer(made(tmp_path))
    found.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode(TEXT).ids == found.encode(TEXT).ids


BROKEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "another kind": ({"model": "llama"}, ("model.gguf: its tokenizer must be 'gpt2'", "'llama'")),
    "another rule": ({"pre": "deepseek-llm"}, ("model.gguf: its tokenizer must be 'gpt2'", "'deepseek-llm'")),
    "a merge of what is no token": ({"merges": ["a z"]}, ("model.gguf: its merges make no tokenizer",)),
    "a merge of one": ({"merges": ["ab"]}, ("model.gguf: its merges make no tokenizer",)),
    "types of other tokens": ({"types": [1]}, ("model.gguf: has 18 tokens and 1 types of them",)),
}


@pytest.mark.parametrize(("fields", "words"), BROKEN.values(), ids=BROKEN)
def test_what_makes_no_tokenizer_is_one_line(tmp_path: Path, fields: dict[str, Any], words: tuple[str, ...]) -> None:
    path = made(tmp_path, **fields)
    with rejects(*words):
        gguf_tokenizer(path)


def test_a_folder_without_one_is_one_line(tmp_path: Path) -> None:
    with rejects("folder: ", "has no tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with rejects("tokenizer.json: cannot be read"):
        load_tokenizer(tmp_path)
