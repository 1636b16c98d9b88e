"""The search for what no page may show finds each kind, where a reader would see it, and lets the rest pass."""

import pytest
from forbidden import forbidden

PAGE = "<!doctype html><html><head><style>a { color: red }</style></head><body>{}</body></html>"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at least nan", ["nan"]),
        ("nan [-inf, inf]", ["nan", "-inf", "inf"]),
        ("up to Infinity", ["Infinity"]),
        ("of {config.name} at", ["{config.name}"]),
        ("it is 0.14286", ["0.14286"]),
        ("it is 12345", ["12345"]),
        ("it is 1.23456e-05", ["1.23456e-05"]),
        ("[0.5, 0.5]", ["[0.5, 0.5]"]),
        ("informal banana 0.9991 [0.9861, 1.012] 1.234·10⁻⁵ 12300 0.0001234 r = 16, 34–40 [0, 1]", []),
    ],
)
def test_each_kind_is_found_in_text_and_in_a_page(text: str, found: list[str]) -> None:
    assert sorted(forbidden(text)) == sorted(found)
    assert sorted(forbidden(PAGE.replace("{}", f"<p>{text}</p>"))) == sorted(found)
    assert sorted(forbidden(PAGE.replace("{}", f'<svg aria-label="{text}"></svg>'))) == sorted(found)


def test_code_may_have_digests_and_formulas_braces_but_no_page_a_field_left_unfilled() -> None:
    assert forbidden("`0123456789` and $$\\frac{1}{r} = 0.33333$$\n```\npip 0.10.25\n```\n[P3](x_12345.md)") == []
    assert forbidden(PAGE.replace("{}", "<code>0123456789</code><math><mo>{</mo></math>")) == []
    assert forbidden("`{config.name}`") == ["`{config.name}`"]
    assert forbidden(PAGE.replace("{}", "<code>nan {x}</code>")) == ["nan", "{x}"]
