"""What no page may show: a number that is none, a brace, more than four significant digits, an interval of no width."""

import re
from html.parser import HTMLParser

NOT_A_NUMBER = re.compile(r"(?<!\w)(?:nan|[-+−]?inf(?:inity)?)(?!\w)", re.IGNORECASE)
BRACE = re.compile(r"\S*[{}]\S*")
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w|\.\d)")
POINT = re.compile(r"\[([^][,]+), \1\]")
MATHEMATICS = re.compile(r"\$\$.*?\$\$", re.DOTALL)
CODE = re.compile(r"^```.*?^```$|`[^`]*`", re.DOTALL | re.MULTILINE)
TARGET, TAG = re.compile(r"(?<=\])\([^)]*\)"), re.compile(r"</?[a-z]+>")


class Shown(HTMLParser):
    """Collect what a page shows or reads out: prose, and apart from it code. Formulas, styles and scripts are left."""

    SPOKEN = ("aria-label", "title", "alt", "placeholder")

    def __init__(self) -> None:
        super().__init__()
        self.prose, self.code, self.within = [], [], []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.prose += [value for key, value in attrs if key in self.SPOKEN and value]
        if tag in ("script", "style", "math", "code"):
            self.within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.within and self.within[-1] == tag:
            self.within.pop()

    def handle_data(self, data: str) -> None:
        if not self.within:
            self.prose.append(data)
        elif self.within == ["code"]:
            self.code.append(data)


def forbidden(text: str) -> list[str]:
    """List what a page, HTML or Markdown, must not show. Code may have digests and versions, formulas braces."""
    if text.lstrip().lower().startswith("<!doctype"):
        page = Shown()
        page.feed(text)
        prose, code = "\n".join(page.prose), "\n".join(page.code)
    else:
        rest = MATHEMATICS.sub("", text)
        code = "\n".join(CODE.findall(rest))
        prose = TAG.sub("", TARGET.sub("", CODE.sub("", rest)))
    everywhere = [found[0] for part in (prose, code) for rule in (NOT_A_NUMBER, BRACE) for found in rule.finditer(part)]
    points = [found[0] for found in POINT.finditer(prose)]
    return [*everywhere, *points, *(word for word in NUMBER.findall(prose) if significant(word) > 4)]


def significant(word: str) -> int:
    """Count significant digits: zeros at the end of a whole number are none."""
    mantissa = word.lower().partition("e")[0]
    digits = mantissa.replace(".", "").lstrip("0")
    return len(digits if "." in mantissa else digits.rstrip("0"))
