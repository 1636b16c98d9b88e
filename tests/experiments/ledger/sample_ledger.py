"""A ledger as the pages must be able to show it: every verdict, long statements, bounds on one side, 18 readings."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

from signal_drift.plotting import STYLE, panels

PROVENANCE = {
    "commit": "4ce2e44d3a6f5bdf6358d9355f1c007371b72e9d",
    "device": "cpu: cpu",
    "dtype": "float64",
    "matmul_precision": "highest",
    "python": "3.11.7",
    "jax": "0.10.2",
    "numpy": "2.4.6",
}
DIGEST = "blake2b:90817263544536271809"
PAPER = {
    "key": "lora_alpha",
    "name": "LoRA-α",
    "title": "The Hidden Power",
    "address": "https://arxiv.org/abs/2606.12883",
}
OURS = {"key": "own", "name": "Our own", "title": "found and checked here", "address": ""}


def verdict_of(band: list, interval: list | None) -> str:
    """The rule of the ledger, written again: inside, apart or across."""
    low, high = (end if end is not None else infinite for end, infinite in zip(band, (-1e999, 1e999), strict=True))
    if interval is None:
        return "inconclusive"
    left, right = (end if end is not None else inf for end, inf in zip(interval, (-1e999, 1e999), strict=True))
    return "supported" if low <= left and right <= high else "refuted" if right < low or high < left else "inconclusive"


def finding(
    quantity: str, predicted: str, band: list, measured: float | None, interval: list | None, **more: Any
) -> dict[str, Any]:
    return {
        "quantity": quantity,
        "predicted": predicted,
        "band": band,
        "measured": measured,
        "interval": interval,
        "method": "Student's t over 5",
        "confidence": 0.98333,
        "seeds": 5,
        "tolerance": "5%: the exact statement is about the mean of infinitely many draws, here there are 320",
        "verdict": verdict_of(band, interval),
        "power": 0.97,
    } | more


def whole(findings: list[dict]) -> str:
    verdicts = {f["verdict"] for f in findings}
    return next((v for v in ("refuted", "inconclusive", "supported") if v in verdicts), "not run")


def sentence(findings: list[dict]) -> str:
    """One sentence of reason, with all the digits that a careless writer leaves in it."""
    decisive = next((f for f in findings if f["verdict"] == whole(findings)), None)
    if decisive is None or decisive["measured"] is None:
        return ""
    return f"{decisive['quantity']} is {decisive['measured']}; allowed is {decisive['predicted']}."


def control(statement: str, *findings: dict) -> dict[str, Any]:
    return {"statement": statement, "verdict": whole(list(findings)), "findings": list(findings)}


def reading(name: str, statement: str, *findings: dict) -> dict[str, Any]:
    return {
        "name": name,
        "problem": "mlp",
        "statement": statement,
        "verdict": whole(list(findings)),
        "sentence": sentence(list(findings)),
        "reason": None,
        "findings": list(findings),
    }


def cell(label: str, verdict: str, *findings: dict, reason: str | None = None) -> dict[str, Any]:
    return {
        "label": label,
        "verdict": verdict,
        "sentence": sentence(list(findings)) or None,
        "reason": reason,
        "findings": [{key: value for key, value in f.items() if key != "problem"} for f in findings],
        "readings": [],
        "control": None,
        "power": 0.912345 if findings else None,
        "seeds": 5 if findings else None,
        "records": DIGEST if findings else "",
        "command": "python -m experiments spectral_suppression" if findings else "",
        "seconds": 61.2 if findings else None,
        "provenance": {},
    }


NEAR = control("1.15 instead of 1", finding("ratio less 0.15", "1 ± 0.05", [0.95, 1.05], 0.8502, [0.845, 0.855]))


def entry(claim: str, group: str, statement: str, *findings: dict, **more: Any) -> dict[str, Any]:
    given = list(findings)
    verdict = more.get("verdict", whole(given))
    return {
        "id": claim,
        "group": group,
        "ours": claim[0] in "XC",
        "paper": OURS if claim[0] in "XC" else PAPER,
        "source": "Eq. 34–40",
        "statement": statement,
        "formula": "",
        "assumptions": ["B = 0", "A_ij independent, mean 0, variance σ_A²"],
        "setting": "",
        "verdict": verdict,
        "sentence": sentence(given),
        "evidence_wanted": "an interval over other seeds that leaves the band",
        "measurement": claim,
        "figure": None,
        "findings": [{"problem": "mlp"} | f for f in given],
        "control": NEAR if given else None,
        "power": 0.97 if given else None,
        "readings": [],
        "narrowest": None,
        "problems": {
            "mlp": cell("MLP of App. E, d = 32", verdict, *given),
            "digits": cell("digits, turned", "supported", *given[:1]),
            "minilm": cell("MiniLM", "not testable here", reason="its full spectrum is <not> affordable"),
            "transformer": cell("a transformer", "not run"),
        },
        "rerun": f"python -m experiments ledger {claim}",
        "seconds": 61.2,
        "provenance": PROVENANCE | {"created": f"2026-11-22T20:{10 + len(claim)}:40Z"},
    } | more


def figure(name: str) -> dict[str, str]:
    return {"name": name, "caption": f"What is measured follows what the paper says (line): {name}, H_ℓ at 0.99907"}


NINE = [
    finding(f"Tr H_Signal / prediction, r = {2**k}", "1 ± 0.05", [0.95, 1.05], 1 + middle, [1 - width, 1 + width])
    for k, (middle, width) in enumerate((0.004 * (-1) ** k, 0.03 / (k + 1)) for k in range(9))
]
DIVERGES = finding("share of seeds at which 128·η₀ diverges", "0.5 to 1", [0.5, 1.0], 0.0, [0.0, 0.4345])
READINGS = [
    reading(
        f"{rule}, {what}",
        f"128·η₀ diverges and 256·α₀ ends below it, with {rule} and {what}",
        DIVERGES,
        finding("final loss, 256·α₀ / 128·η₀", "< 1", [None, 1], value, [0.85 * value, 1.15 * value]),
    )
    for i, rule in enumerate(("s = α/r", "s = α"))
    for what, value in {
        "plain": 2.18,
        "activated": 1.69,
        "minibatch": 2.29,
        "targets-x10": 1.43 - i,
        "targets-x0.1": 5.55,
        "summed": 2.2,
        "float64": 2.18,
        "A-std-1_d": 1.02,
        "W0-and-A-std-1_d": 3.1,
    }.items()
]

LEDGER: list[dict[str, Any]] = [
    entry(
        "P1-update",
        "algebra",
        "Δw = JΔθ + ½∇²w[Δθ, Δθ] with no remainder; per layer ΔW_Signal = s(BΔA + ΔB A), ΔW_Drift = s ΔB ΔA",
        finding("‖w(θ+Δθ) − w(θ) − ΔW_Signal − ΔW_Drift‖ / ‖Δw‖", "rounding", [None, 1.1e-13], 2.2e-16, [0, 2.2e-16]),
        formula=r"\Delta w = J\Delta\theta + \frac{1}{2}\nabla^2 w[\Delta\theta, \Delta\theta]",
        source="Eq. 4, 11, 18–21",
        assumptions=[],
        control=control("drift ×1.2", finding("relative error", "rounding", [None, 1.1e-13], 0.031, [0.03, 0.032])),
    ),
    entry(
        "P2-psd",
        "algebra",
        "If H_ℓ ⪰ 0 then H_Signal = JᵀH_ℓJ ⪰ 0",
        finding("λ_min[H_Signal] / λ_max[H_Signal]", "≥ 0 up to rounding", [-1e-13, None], -4e-15, [-9e-15, 0]),
        figure=figure("two_panels"),
    ),
    entry(
        "P2-premise",
        "fixed weights",
        "H_ℓ is positive semi-definite on the paper’s own MLP",
        finding("λ_min[H_ℓ] / λ_max[H_ℓ]", "≥ 0", [0, None], -0.228762800435105, [-0.3215260578743545, -0.136]),
        finding("share of eigenvalues below −n·ε·‖H‖", "0", [0, 0], 0.31, [0.28, 0.34]),
        narrowest="The Gauss–Newton matrix in the place of H_ℓ is positive semi-definite (X6).",
        readings=[
            reading("trained", "H_ℓ ⪰ 0 after 2000 steps", finding("λ_min", "≥ 0", [0, None], -1e-4, [-2e-4, 1e-5])),
            reading(
                "Gauss–Newton", "G ⪰ 0 with G in its place", finding("λ_min of G", "≥ 0", [0, None], 3e-17, [0, 1])
            ),
        ],
        figure=figure("two_panels"),
    ),
    entry(
        "P3-trace",
        "fixed weights",
        "At B = 0 with A_ij independent and of variance σ_A²: E[Tr H_Signal] = α² (σ_A²/r) Tr H_ℓ",
        *NINE,
        formula=r"\mathbb{E}[\operatorname{Tr} H_{\text{Signal}}] = \alpha^2 \frac{\sigma_A^2}{r} \operatorname{Tr} H",
        symbols={"σ_A": "the standard deviation that A is drawn with"},
        measurement="trace over draws of A",
        figure=figure("one"),
    ),
    entry(
        "P4-landscape",
        "fixed weights",
        "At fixed (W₀, A, B = 0): H_Signal = Θ(α²) and H_Drift = Θ(α), so that the ratio of their norms grows like α",
        finding("exponent of λ_max[H_Signal] in α", "2 exactly", [2, 2], 2.0, [2.0, 2.0]),
        finding("exponent of |λ_min[H_Drift]| in α, trained", "1 ± 0.05", [0.95, 1.05], 0.8883, [0.7856, 0.9909]),
        narrowest="It holds at B = 0 and fixed A; after training the exponent of the drift is lower.",
    ),
    entry(
        "K1-alignment",
        "fixed weights",
        "E[Tr H_Signal] = Tr H_ℓ at α = √r/σ_A",
        NINE[4],
        finding(
            "the same", "1 ± 0.05", [0.95, 1.05], 0.98765432, [0.9612345, 1.0123456], method="exact", problem="digits"
        ),
        measurement="trace over draws of A",
    ),
    entry(
        "L1-stability",
        "fixed weights",
        "Gradient descent is stable if and only if η ≤ 2/λ_max(H)",
        finding("largest stable η · λ_max / 2, α = 1 … 256", "order of 1", [0.5, 2], 1.02, [0.93, 1.13]),
        finding("the same on the quadratic", "1 ± 1e-6", [1 - 1e-6, 1 + 1e-6], 1 + 2e-7, [1 - 1e-7, 1 + 4e-7]),
        source="Eq. 41–42",
    ),
    entry(
        "P4-update",
        "one step",
        "Under Adam ‖Δw_Signal‖ = Θ(αη), ‖Δw_Drift‖ = Θ(αη²), their ratio Θ(1/η)",
        sentence="update_scaling has no record of this configuration",
        provenance=None,
        seconds=None,
        evidence_wanted=None,
    ),
    entry(
        "F2a-trajectories",
        "training",
        "64·η₀ and 128·α₀ start alike, 64·η₀ already oscillates, 128·η₀ diverges catastrophically, while 256·α₀ is "
        "strictly stable and fits deeper",
        DIVERGES,
        finding("final loss, 256·α₀ over 128·η₀", "< 1", [None, 1], 2.18, [1.87, 2.49]),
        finding("largest climb of 64·η₀ above its lowest loss", "> 1.1", [1.1, None], 1.08, [1.02, 1.14]),
        finding("loss after 100 steps of 128·η₀ over the initial loss", "> 1", [1, None], None, [1.4, None]),
        source="Fig. 2a, App. E",
        readings=READINGS,
        figure=figure("one"),
    ),
    entry(
        "F1c-square-root",
        "tuning",
        "At η_FFT the best α grows like C√r with C ≫ 1 | slope fixed at ½ in log space",
        finding("free slope of log α* in log r, digits", "½ ± 0.1", [0.4, 0.6], 0.2351, [0.1675, 0.3528]),
        finding("free slope of log α* in log r, mlp256", "½ ± 0.1", [0.4, 0.6], 0.8391, [0.4888, 0.8579]),
        source="Eq. 3, Fig. 1c",
        setting="d = 64 where the paper has 2048",
        control=control("slope 0.7", finding("slope", "0.7 ± 0.1", [0.6, 0.8], None, [None, None])),
    ),
    entry(
        "V2",
        "tuning",
        "The best α is √r/σ_A",
        verdict="not testable here",
        sentence="at r = 64 and d = 64 V2 is α = r, the baseline",
        evidence_wanted="a model with d_in > 3r",
    ),
    entry(
        "V-protocol",
        "tuning",
        "At η_FFT LoRA-α recovers most of the gap between LoRA (α = r) and full fine-tuning",
        finding("share of the gap closed, digits, r = 64", "> ½", [0.5, None], 0.55, [0.31, 0.79]),
        figure=figure("not_drawn"),
    ),
    entry(
        "X3",
        "one step",
        "From B = 0 the first step of GD, sign descent and Adam has ΔA = 0, so ‖ΔW_Drift‖ <b>is</b> exactly 0 & more",
        finding('‖ΔW_Drift‖_F after one step, "Adam" <1e-8>', "0 exactly", [0, 0], 0.0, [0.0, 0.0]),
        source="",
    ),
    entry(
        "X4",
        "algebra",
        "Multiplying α by c equals multiplying η_B alone by c (LoRA+ ratio c); α differs from a tied rate only",
        finding("‖w − w'‖ / ‖w‖ after 100 steps, factors of two", "0 ± 1e-12", [0, 1e-12], 0.0, [0.0, 0.0]),
        finding("the same under weight decay", "> 0.1", [0.1, None], 0.62, [0.55, 0.7]),
        seconds=7400.0,
    ),
]


def named(claim: str) -> dict[str, Any]:
    return next(e for e in LEDGER if e["id"] == claim)


def draw(folder: Path) -> Path:
    """The two figures that the ledger mentions and that have been drawn; their files use the same ids."""
    folder.mkdir()
    for name, columns in {"one": 1, "two_panels": 2}.items():
        figure, axes = panels(columns, name)
        for panel in axes:
            panel.plot([0, 1.23456789], [1, 2], label="λ_max")
            panel.legend()
        with mpl.rc_context(STYLE):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return folder
