"""The template for a reply: filled in from the entry, beside refuted statements and no others."""

from pathlib import Path

from sample_ledger import LEDGER, named

from experiments.ledger.pages import Page, write_pages
from experiments.ledger.quoted.reply import QUESTIONS, reply


def test_a_reply_has_the_statement_the_numbers_the_records_and_every_question() -> None:
    text = reply(named("F2a-trajectories"))
    assert text.splitlines()[0] == "Re: F2a-trajectories (LoRA-α, Fig. 2a, App. E), refuted"
    assert "Refuted by: share of seeds at which 128·η₀ diverges on mlp: 0 [0, 0.4345]; allowed 0.5 to 1 (5%:" in text
    assert "Records on mlp: blake2b:90817263544536271809" in text
    assert "Measured again by: python -m experiments ledger F2a-trajectories" in text
    assert text.endswith("\n".join(QUESTIONS))
    assert all(len(line.split("\n")) == 1 for line in text.splitlines())


def test_it_stands_beside_refuted_statements_alone(tmp_path: Path) -> None:
    write_pages(LEDGER, Page(tmp_path / "figures"), tmp_path)
    refuted = [e["id"] for e in LEDGER if e["verdict"] == "refuted"]
    for name in ("report.md", "report.html"):
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert page.count("Re: ") == len(refuted)
        assert all(f"Re: {claim} (" in page for claim in refuted)
