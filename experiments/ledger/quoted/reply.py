"""Write what an author has to say to dispute a refuted statement, with all that is known of it filled in."""

from experiments.ledger.table import Entry
from experiments.ledger.text import interval, number, short

QUESTIONS = (
    "1. Is this what you state? If not, your words:",
    "2. Is a condition missing under which you state it? Which, and how is it measured here:",
    "3. Is the band wrong (see its reason above)? The one you would allow, and why:",
    "4. Is the measurement wrong? The record, the line of code or the setting:",
    "5. Does a reading hold that is not among those tried? Its words, and the quantity that decides it:",
)


def reply(entry: Entry) -> str:
    """Write a template for a reply: the statement, what refuted it, the records, and the questions to be answered."""
    refuted = [f for f in entry["findings"] or [] if f["verdict"] == "refuted"]
    lines = [
        f"Re: {entry['id']} ({entry['paper']['name']}, {entry['source']}), refuted",
        f"Statement as judged: {short(entry['statement'])}",
        *(f"Refuted by: {short(_line(f))}" for f in refuted),
        *(f"Records on {name}: {cell['records']}" for name, cell in entry["problems"].items() if cell["records"]),
        *([f"Holds instead: {short(entry['narrowest'])}"] if entry["narrowest"] else []),
        f"Measured again by: {entry['rerun']}",
        "",
        *QUESTIONS,
    ]
    return "\n".join(" ".join(line.split()) for line in lines)


def _line(finding: Entry) -> str:
    around = interval(finding["interval"])
    measured = f"{number(finding['measured'])}{f' {around}' if around else ''}"
    where = f" on {finding['problem']}" if "problem" in finding else ""
    return f"{finding['quantity']}{where}: {measured}; allowed {finding['predicted']} ({finding['tolerance']})"
