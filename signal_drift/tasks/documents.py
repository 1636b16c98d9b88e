"""Reads documents as their sentences, of which two make a pair: VADER's product reviews and editorials.

>>> documents = [("A sentence of five words.", "No.", "And a second one of six."), ("One sentence is no pair.",)]
>>> distinct_documents(documents)
[('A sentence of five words.', 'And a second one of six.')]
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from signal_drift.tasks.rated_text import held_out_by_digest, plain, read_rows

Document = tuple[str, ...]
"""The sentences of one document, in their order."""
DOMAINS = ("products", "editorials")
"""Whose sentences are published document by document."""
WORDS = 5
"""Of a sentence that counts; what is shorter says little of its document, and may stand in any."""


def read_documents(archive: str | Path) -> dict[str, list[Document]]:
    """Read the product reviews and editorials in the source archive of vaderSentiment 3.3.2, sentence by sentence.

    Raises `InputError` for a file that is not that archive.
    """
    rows = read_rows(archive)
    found: dict[str, list[Document]] = {}
    for domain in DOMAINS:
        sentences: dict[str, list[str]] = {}
        for row in rows[domain]:
            sentences.setdefault(row.name.partition("_")[0], []).append(row.text)
        found[domain] = [tuple(x) for x in sentences.values()]
    return found


def distinct_documents(documents: Iterable[Document], apart_from: Iterable[Document] = ()) -> list[Document]:
    """Leave out whatever has a sentence in common with an earlier document, or with those of `apart_from`.

    Two sentences are one if they differ in case and spaces alone. What counts are sentences of at least five words,
    each once, and documents that have at least two of these.
    """
    seen = {plain(sentence) for document in apart_from for sentence in document}
    kept = []
    for document in documents:
        sentences = {plain(sentence): sentence for sentence in document if len(sentence.split()) >= WORDS}
        if len(sentences) > 1 and not seen & sentences.keys():
            kept.append(tuple(sentences.values()))
        seen |= sentences.keys()
    return kept


def split_documents(documents: Sequence[Document], held_out: float = 0.3) -> tuple[list[Document], list[Document]]:
    """Split into (training, held out), about 1 − `held_out` to `held_out`, by the digests of their first sentences."""
    apart = held_out_by_digest([sentences[0] for sentences in documents], held_out)
    training = [document for document, held in zip(documents, apart, strict=True) if not held]
    return training, [document for document, held in zip(documents, apart, strict=True) if held]
