"""Draw a record: every error beside its bound, and every time beside the host's and the device's own floor."""

from typing import Any

from experiments.benchmark.on_device import LOWERED
from signal_drift import plotting

LEAST = 1e-17
"""What an error of 0 is drawn as."""


def draw(record: dict[str, Any]) -> plotting.Figure:
    """Draw what the record has of agreement and of time."""
    figure, axes = plotting.panels(2, f"{record['place']['device']} against the CPU beside it", 6.2, 6.0)
    _draw_errors(axes[0], record["agreement"])
    _draw_times(axes[1], record["speed"])
    return figure


def _draw_errors(panel: plotting.Axes, found: list[dict[str, Any]]) -> None:
    names = [f"{x['kernel']}{' by default' if x['way'] == LOWERED else ''}, {x['dtype'][5:]} bits" for x in found]
    rows = range(len(found))
    held = [(y, x["bound"]) for y, x in zip(rows, found, strict=True) if x["way"] != LOWERED]
    style: dict[str, Any] = {"ls": "", "ms": 8}
    panel.plot(
        [bound for _, bound in held],
        [y for y, _ in held],
        marker="|",
        mew=2.5,
        color=plotting.COLOR["prediction"],
        label="rounding may do",
        **style,
    )
    errors = [max(x["error"], LEAST) for x in found]
    panel.plot(errors, rows, marker="o", color=plotting.COLOR["signal"], label="this device", **style)
    host = [(max(x["host_error"], LEAST), y) for y, x in zip(rows, found, strict=True) if x["host_error"] > 0]
    panel.plot(*zip(*host, strict=True), marker="x", color=plotting.COLOR["drift"], label="CPU in 32 bits", **style)
    panel.set_yticks(list(rows), names, fontsize=9)
    panel.set(xscale="log", xlabel="error over the CPU's number in 64 bits", title="(a) the numbers")
    panel.invert_yaxis()
    panel.legend(loc="upper center", bbox_to_anchor=(0.3, -0.1), ncols=3, fontsize=9)


def _draw_times(panel: plotting.Axes, found: list[dict[str, Any]]) -> None:
    found = [x for x in found if not x["reason"] and x["kernel"] not in ("matrices", "memory")]
    rows = range(len(found))
    names = [
        f"{x['kernel']}{', torch' if x['way'] == 'torch' else ''}, {x['dtype'][5:]} bits, d = {x['width']}"
        for x in found
    ]
    series = {
        "floor": (
            "|",
            "prediction",
            {y: x["seconds"] / x["over_floor"] for y, x in enumerate(found) if "over_floor" in x},
        ),
        "this device": ("o", "signal", {y: x["seconds"] for y, x in enumerate(found)}),
        "CPU": ("x", "drift", {y: x["host_seconds"] for y, x in enumerate(found) if "host_seconds" in x}),
    }
    for label, (marker, hue, points) in series.items():
        style: dict[str, Any] = {"marker": marker, "ls": "", "ms": 8, "mew": 2.5 if marker == "|" else 1.5}
        panel.plot(list(points.values()), list(points), color=plotting.COLOR[hue], label=label, **style)
    panel.set_yticks(list(rows), names, fontsize=9)
    panel.set(xscale="log", xlabel="seconds, synchronised", title="(b) the times")
    panel.invert_yaxis()
    panel.legend(loc="upper center", bbox_to_anchor=(0.3, -0.1), ncols=3, fontsize=9)
