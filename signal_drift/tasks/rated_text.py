"""Reads text whose sentiment people rated, as published with VADER (Hutto and Gilbert 2014, MIT)."""

import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from signal_drift.errors import InputError
from signal_drift.files import load_tokenizer

DOMAINS = {
    "movies": "movieReviewSnippets",
    "tweets": "tweets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"


class Rated(NamedTuple):
    """Holds texts and the mean of their ratings, from −4 (negative) to 4 (positive)."""

    texts: tuple[str, ...]
    ratings: Float[np.ndarray, "n"]

    def where(self, chosen: Bool[np.ndarray, "n"]) -> "Rated":
        """Take the texts that are chosen."""
        return Rated(tuple(text for text, yes in zip(self.texts, chosen, strict=True) if yes), self.ratings[chosen])


class Tokens(NamedTuple):
    """Holds token ids, 0 after the end of a text, and the mask of those that count."""

    ids: Int[np.ndarray, "n t"]
    mask: Bool[np.ndarray, "n t"]


class Row(NamedTuple):
    """Holds a text, the mean of its ratings, and how its file names it."""

    name: str
    rating: float
    text: str


def read_ratings(archive: str | Path) -> dict[str, Rated]:
    """Read the four domains in the source archive of vaderSentiment 3.3.2; nothing of it is unpacked to disk.

    Raises `InputError` for a file that is not that archive.
    """
    return {
        domain: Rated(tuple(row.text for row in rows), np.array([row.rating for row in rows]))
        for domain, rows in read_rows(archive).items()
    }


def read_rows(archive: str | Path) -> dict[str, list[Row]]:
    """Read the lines of the four domains. Raises `InputError` for a file that is not that archive."""
    try:
        with tarfile.open(archive) as outer:
            member = next(name for name in outer.getnames() if name.endswith(INNER))
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                return {domain: _rows(inner, name) for domain, name in DOMAINS.items()}
    except (OSError, tarfile.TarError, StopIteration, KeyError, ValueError) as error:
        raise InputError(f"archive: {str(archive)!r} is not vaderSentiment's source ({type(error).__name__})") from None


def split_by_digest(rated: Rated, held_out: float = 0.2) -> tuple[Rated, Rated]:
    """Split into (training, held out), about 1 − `held_out` to `held_out`, by the digest of each text.

    The split is one on every machine, and a text that occurs twice, but for case and spaces, is on one side only.
    """
    apart = held_out_by_digest(rated.texts, held_out)
    return rated.where(~apart), rated.where(apart)


def held_out_by_digest(texts: Sequence[str], held_out: float) -> Bool[np.ndarray, "n"]:
    """Choose about this share of texts, each by its own digest, whatever its case and spaces.

    >>> held_out_by_digest(["a text", "A  text", "another"], 0.5).tolist()
    [True, True, False]
    """
    if not 0 < held_out < 1:
        raise InputError(f"held_out: must be between 0 and 1, got {held_out}")
    digests = [hashlib.sha256(plain(text).encode()).digest() for text in texts]
    return np.array([int.from_bytes(digest[:8]) < held_out * 2**64 for digest in digests], bool)


def apart_from(rated: Rated, training: Rated) -> Rated:
    """Leave out the texts that `training` has too, but for case and spaces."""
    seen = {plain(text) for text in training.texts}
    return rated.where(np.array([plain(text) not in seen for text in rated.texts], bool))


def tokenise(folder: str | Path, texts: tuple[str, ...], length: int = 32) -> Tokens:
    """Split every text into its first `length` tokens by the `tokenizer.json` of a Hugging Face directory.

    Needs the `minilm` extra. Raises `InputError` where there is no tokenizer.
    """
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    found = tokenizer.encode_batch(list(texts))
    return Tokens(np.array([x.ids for x in found], np.int32), np.array([x.attention_mask for x in found], bool))


def plain(text: str) -> str:
    """Return a text without its case and its spaces: what two texts that count as one share."""
    return " ".join(text.lower().split())


def _rows(archive: tarfile.TarFile, name: str) -> list[Row]:
    """One file: a name, a rating and a text on each line, with tabs between."""
    member = archive.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
    assert member is not None  # a file, by its name
    lines = [line.split("\t") for line in member.read().decode("utf-8").splitlines()]
    return [Row(key, float(rating), text.strip()) for key, rating, text in lines]
