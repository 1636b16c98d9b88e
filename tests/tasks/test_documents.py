"""Documents of sentences: read from an archive of the published layout, none sharing a sentence with another."""

from pathlib import Path

import numpy as np
from problems import rejects
from published import published

from signal_drift.tasks.documents import distinct_documents, read_documents, split_documents

LINES = {
    "movies": "1\t2.5\tA fine film.\r\n",
    "tweets": "1\t1.0\tYay\r\n",
    "products": "1_1\t-0.9\tno picture\r\n1_2\t0\t it broke \r\n10_1\t1\tgood\r\n",
    "editorials": "1_1\t0.4\tAround noon\r\n2_1\t0\tLate\r\n",
}


def sentence(number: int) -> str:
    return f"This is the sentence number {number}"


def test_documents_come_back_sentence_by_sentence(tmp_path: Path) -> None:
    assert read_documents(published(tmp_path / "v.tar.gz", LINES)) == {
        "products": [("no picture", "it broke"), ("good",)],
        "editorials": [("Around noon",), ("Late",)],
    }


def test_what_is_not_that_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "v.tar.gz").write_text("no archive")
    with rejects("archive: ", "is not vaderSentiment's source"):
        read_documents(tmp_path / "v.tar.gz")


def test_no_sentence_is_in_two_documents() -> None:
    """The first document that has it is kept, and a later one left out whole, whatever else it says."""
    documents = [
        (sentence(0), sentence(1), "No."),
        (sentence(2), f" this  is the SENTENCE number {1}", sentence(3)),
        (sentence(3), sentence(4)),  # a sentence of one that is left out itself
        (sentence(5), sentence(6), "no."),
        (sentence(7), sentence(7).upper(), ["Four words and no", "more"][0]),  # one sentence that counts
    ]
    assert distinct_documents(documents) == [(sentence(0), sentence(1)), (sentence(5), sentence(6))]
    other = [(sentence(6).upper(), sentence(9))]
    assert distinct_documents(documents, apart_from=other) == [(sentence(0), sentence(1))]


def test_documents_are_whole_on_one_side_and_the_same_everywhere() -> None:
    """The share is that of a binomial to five standard deviations."""
    documents = [(f"{i}", f"{i} again") for i in range(2000)]
    training, held_out = split_documents(documents, 0.3)
    assert sorted(training + held_out) == sorted(documents)
    assert abs(len(held_out) - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7)
    assert split_documents(held_out[:3] + training[:3], 0.3) == (training[:3], held_out[:3])


def test_a_share_of_all_is_refused() -> None:
    with rejects("held_out: must be between 0 and 1", "1.0"):
        split_documents([("a", "b")], 1.0)
