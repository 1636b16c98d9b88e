"""Rated snippets: read from an archive of the published layout, split without leakage, tokenised."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from problems import rejects
from published import add, published, tokenizer

from signal_drift.tasks.rated_text import DOMAINS, Rated, apart_from, read_ratings, split_by_digest, tokenise

LINES = {
    "movies": "1\t2.5\tA fine film.\r\n2\t-0.6\tTepid   \r\n",
    "tweets": "1\t1.0\tYay\r\n",
    "products": "1_1\t-0.9\tno picture\r\n",
    "editorials": "1_1\t0.4\tAround noon\r\n",
}


def test_texts_and_ratings_come_back(tmp_path: Path) -> None:
    found = read_ratings(published(tmp_path / "v.tar.gz", LINES))
    assert set(found) == set(DOMAINS)
    assert found["movies"].texts == ("A fine film.", "Tepid")
    assert found["movies"].ratings.tolist() == [2.5, -0.6]


@pytest.mark.parametrize("broken", ["a domain missing", "text", "another archive", "absent", "no number"])
def test_what_is_not_that_archive_is_one_line(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "v.tar.gz"
    if broken == "a domain missing":
        published(path, {k: v for k, v in LINES.items() if k != "tweets"})
    elif broken == "no number":
        published(path, LINES | {"tweets": "1\thigh\tYay\n"})
    elif broken == "text":
        path.write_text("no archive")
    elif broken == "another archive":
        with tarfile.open(path, "w:gz") as archive:
            add(archive, "readme", b"")
    with rejects("archive: ", "is not vaderSentiment's source"):
        read_ratings(path)


def test_a_text_is_on_one_side_however_often_it_occurs() -> None:
    texts = tuple(f"Text number {i % 400}" if i // 400 % 2 else f"text  number {i % 400} " for i in range(2000))
    rated = Rated(texts, np.arange(2000.0))
    training, held_out = split_by_digest(rated)
    sides = [{" ".join(text.lower().split()) for text in side.texts} for side in (training, held_out)]
    assert not sides[0] & sides[1]
    assert len(training.texts) + len(held_out.texts) == 2000
    assert sorted([*training.ratings, *held_out.ratings]) == list(range(2000))
    assert all(texts[int(i)] == text for text, i in zip(held_out.texts, held_out.ratings, strict=True))
    assert split_by_digest(rated)[1].texts == held_out.texts


def test_what_was_trained_on_is_left_out_elsewhere() -> None:
    other = Rated(("Good  stuff", "bad", "GOOD stuff", "new"), np.arange(4.0))
    left = apart_from(other, Rated(("good stuff", "fine"), np.zeros(2)))
    assert left.texts == ("bad", "new")
    assert left.ratings.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_share_held_out_is_that_asked_for(share: float) -> None:
    """Fails by chance less than once in a million: 10,000 texts, to five standard deviations of a binomial."""
    rated = Rated(tuple(map(str, range(10_000))), np.zeros(10_000))
    count = len(split_by_digest(rated, share)[1].texts)
    assert abs(count - 10_000 * share) < 5 * np.sqrt(10_000 * share * (1 - share))


def test_a_share_of_all_is_refused() -> None:
    with rejects("held_out: must be between 0 and 1", "1.5"):
        split_by_digest(Rated((), np.zeros(0)), 1.5)


def test_tokens_are_cut_and_filled_to_one_length(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra minilm")
    tokenizer(tmp_path, ["a", "b", "c"])
    ids, mask = tokenise(tmp_path, ("a b", "c c c c c", "q"), length=4)
    assert ids.tolist() == [[2, 3, 0, 0], [4, 4, 4, 4], [1, 0, 0, 0]]
    assert mask.tolist() == [[True, True, False, False], [True] * 4, [True, False, False, False]]


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra minilm")
    with rejects("folder: ", "has no tokenizer.json"):
        tokenise(tmp_path, ("a",))
