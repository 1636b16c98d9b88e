"""Describe a ledger.json as JSON Schema, for those who read it with another program: `docs/ledger.schema.json`.

`experiments.ledger.table` checks the same here, and that no two claims have one id.
"""

import sys
from typing import Any

from experiments.ledger.claim import GROUPS
from experiments.ledger.table import PAPER, SCHEMA
from experiments.ledger.verdict import VERDICTS

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
LEVEL: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
TRUTH: dict[str, Any] = {"type": "boolean"}
NAME: dict[str, Any] = {"type": "string", "pattern": r"^[\w-]+$"}
DIGEST: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "SHA-256"}
SEEDS: dict[str, Any] = {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10**9}


def schema() -> dict[str, Any]:
    """Return the schema of a ledger.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        "title": "The ledger of signal_drift: statements on LoRA, and what stored records say of each",
        **_object(schema={"const": SCHEMA}, manifest=_ref("manifest"), claims=_list(_ref("claim"))),
        "$defs": {
            "manifest": _object(commit=TEXT, claims=DIGEST, code=_by_name(DIGEST), records=_by_name(DIGEST))
            | {
                "description": "claims: the digest of the claims as JSON with sorted keys, without blanks, in UTF-8; "
                "code and records: those of files by their path in the project at that commit"
            },
            "pair": {
                "type": "array",
                "items": _or_none(NUMBER),
                "minItems": 2,
                "maxItems": 2,
                "description": "both ends; null where unbounded",
            },
            "verdict": {"enum": list(VERDICTS)},
            "paper": _object(**dict.fromkeys(PAPER, TEXT)),
            "finding": _object(
                **dict.fromkeys(("quantity", "predicted", "method", "tolerance"), TEXT),
                band=_ref("pair"),
                measured=_or_none(NUMBER),
                interval=_or_none(_ref("pair")),
                confidence=LEVEL,
                seeds=_or_none(SEEDS),
                verdict=_ref("verdict"),
                optional={"power": SHARE, "problem": TEXT},
            ),
            "reading": _object(
                **dict.fromkeys(("name", "problem", "statement", "command", "sentence", "reason"), TEXT),
                verdict=_ref("verdict"),
                findings=_list(_ref("finding")),
                optional={"sound": TRUTH},
            ),
            "cell": _object(
                **_judged(), label=TEXT, statement=_or_none(TEXT), seeds=_or_none(SEEDS), records=_or_none(TEXT)
            ),
            "claim": _object(
                **_judged(),
                **dict.fromkeys(("source", "statement", "formula", "setting", "measurement", "rerun"), TEXT),
                id=NAME,
                group={"enum": list(GROUPS)},
                ours=TRUTH,
                paper=_ref("paper"),
                assumptions=_list(TEXT),
                problems=_by_name(_ref("cell")),
            ),
        },
    }


def _judged() -> dict[str, Any]:
    """Describe what is said of a statement on one problem, and as its homes decide it together."""
    return {
        **dict.fromkeys(("sentence", "reason", "evidence_wanted"), TEXT),
        **dict.fromkeys(("command", "predicted", "tolerance", "narrowest"), _or_none(TEXT)),
        **dict.fromkeys(("measured", "seconds"), _or_none(NUMBER)),
        "power": _or_none(SHARE),
        "verdict": _ref("verdict"),
        "interval": _or_none(_ref("pair")),
        "findings": _list(_ref("finding")),
        "control": _or_none(_ref("reading")),
        "readings": _list(_ref("reading")),
        "figure": _or_none(_object(name=NAME, caption=TEXT)),
        "provenance": _by_name(TEXT),
    }


def _object(optional: dict[str, Any] | None = None, **needed: Any) -> dict[str, Any]:
    properties = needed | (optional or {})
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(needed),
        "additionalProperties": False,
    }


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _by_name(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": of}


def _or_none(of: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, of]}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}
