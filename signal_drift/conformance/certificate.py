"""Compares what is seen of a framework from the outside with what its configuration says."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from signal_drift.conformance.framework import (
    Factors,
    Framework,
    Layer,
    SigmaA,
    Theta,
    check_base,
    check_layers,
    check_state,
)
from signal_drift.conformance.initialisation import SigmaInterval, initialisers, sigma_interval
from signal_drift.conformance.kinds import framework_of
from signal_drift.conformance.probes import Probes, change_at, observe, without_b
from signal_drift.conformance.rounding import EPSILON, dtypes, rounding_bound, underflow_bound
from signal_drift.conformance.scaling import READINGS, Fit, Observation, fitted_scaling, readings
from signal_drift.conformance.stored import stored_layers
from signal_drift.display import Table, displayed_as, number
from signal_drift.errors import InputError
from signal_drift.errors.words import printable, shown

FALSE_ALARM = 1e-3
"""How often a certificate refuses the σ_A of sound layers, all of them together."""


class Finding(NamedTuple):
    """Holds what is seen of one layer, beside what is `said`.

    `s` is fitted, to a relative `tolerance`, `elsewhere` is what it is at other A, B or x, and `reading` are the
    readings of α and r that give it; `residual` is what s·BAx leaves over of the change with B, and `bound` what
    rounding may. `dtype` lists those whose rounding fits, and `as_one` the other layers whose factors this one follows.
    `sigma` is the interval of σ_A, None where the start is not known, and `drawn` the initialisers in it.
    """

    layer: str
    said: Layer
    s: float
    elsewhere: tuple[float, ...]
    tolerance: float
    residual: float
    bound: float
    reading: tuple[str, ...]
    dtype: tuple[str, ...]
    as_one: tuple[str, ...]
    starts_at_zero: bool | None
    sigma: SigmaInterval | None
    drawn: tuple[str, ...]


class Certificate(NamedTuple):
    """Holds what was found in every layer, and each contradiction with the configuration, the first one first."""

    framework: str
    layers: tuple[Finding, ...]
    contradictions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Tell whether nothing contradicts the configuration."""
        return not self.contradictions


def certify(framework: Any, *, saved: str | Path | None = None, sigma_a: SigmaA | None = None) -> Certificate:
    """Recover s, σ_A, B = 0, the precision and the tying of every layer from outputs, and compare with what is said.

    `framework` is a `Framework` or a model of a known kind, with the factors that it begins with. With `saved`, the
    folder or file that it wrote of its factors as they are, s·BA of the file is compared with what is run. `sigma_a` is
    what is said of σ_A, a number or a function of d_in and r, where a model of flax or Keras does not begin with the
    default of its framework. That y(A, 0) is W₀x + b is asked where the framework shows its W₀.

    Raises `InputError` for a framework of an unknown kind, a forward pass that is not deterministic or not finite,
    adapters that are merged, and a layer without α or r.
    """
    if saved is not None and not isinstance(saved, str | Path):
        raise InputError(f"saved: must be a folder or file, got {shown(saved)}")
    seen = framework_of(framework, sigma_a)
    check_layers(seen.layers)
    check_state(seen.layers, seen.state)
    check_base(seen.layers, seen.base)
    probes = observe(seen)
    found = _findings(seen.layers, probes, None if seen.trained else seen.state)
    contradictions, notes = [*_contradictions(found), *_of_base(seen, found)], [*_notes(found)]
    if saved is not None:
        wrong, untold = _saved(seen, saved, {x.layer: x for x in found})
        contradictions, notes = [*contradictions, *wrong], [*notes, *untold]
    return Certificate(seen.name, found, tuple(contradictions), tuple(notes))


def certify_outputs(
    name: str, layers: Mapping[str, Layer], outputs: Mapping[str, Observation], start: Theta | None = None
) -> Certificate:
    """Recover the same from outputs that are there already: of every layer, with B and without it, on the same inputs.

    `start` are the factors as they were drawn. What `layers` say is `stored_layers(folder)[0]` for an adapter on disk.
    Raises `InputError` for outputs of other layers or shapes, and for those that are not finite.
    """
    check_layers(layers)
    if start is not None:
        check_state(layers, start)
    if not isinstance(outputs, Mapping) or outputs.keys() != layers.keys():
        raise InputError(f"outputs: must be of the layers {sorted(layers)}, got {sorted(map(str, outputs))}")
    for layer, seen in outputs.items():
        _check_outputs(layer, layers[layer], seen)
    found = _findings(layers, {k: Probes(x, x) for k, x in outputs.items()}, start)
    return Certificate(name, found, tuple(_contradictions(found)), tuple(_notes(found)))


def _check_outputs(name: str, layer: Layer, seen: Observation) -> None:
    (d_out, d_in), r, n = layer.shape, layer.r, len(seen.x)
    shapes = {"x": (n, d_in), "A": (r, d_in), "B": (d_out, r), "without": (n, d_out), "with_b": (n, d_out)}
    for field, shape in shapes.items():
        x = np.asarray(getattr(seen, field), float)
        if x.shape != shape:
            raise InputError(f"outputs[{name!r}].{field}: must have the shape {shape}, got {x.shape}")
        if not np.isfinite(x).all():
            raise InputError(f"outputs[{name!r}].{field}: must be finite, got {x[~np.isfinite(x)][0]}")


def _findings(layers: Mapping[str, Layer], probes: Mapping[str, Probes], start: Theta | None) -> tuple[Finding, ...]:
    drawn = sum(not math.isnan(layer.sigma_a) for layer in layers.values())
    return tuple(
        _finding(name, layer, probes, None if start is None else start[name], FALSE_ALARM / max(drawn, 1))
        for name, layer in sorted(layers.items())
    )


def _finding(name: str, layer: Layer, probes: Mapping[str, Probes], start: Factors | None, error: float) -> Finding:
    as_one = _followed(name, probes)
    full, single, *unscaled = _with_factors_of(as_one[0] if as_one else name, name, probes)
    fit, one = fitted_scaling(full), fitted_scaling(single)
    found = dtypes(one.residual, single) if one.s else ()
    dtype = found[-1] if found else "bfloat16"
    epsilon = EPSILON[dtype]
    tolerance = rounding_bound(single, epsilon)
    bounds = [(fit.residual, rounding_bound(full, epsilon)), (one.residual, tolerance)]
    residual, bound = max(bounds, key=lambda x: x[0] / x[1])
    within = [(fit.s, bounds[0][1])]
    if one.s:
        limits = [rounding_bound(x, epsilon, one.s) + underflow_bound(x, dtype, one.s) for x in unscaled]
        within += [(fitted_scaling(x).s, limit) for x, limit in zip(unscaled, limits, strict=True) if limit < 1]
    sigma = None if start is None or math.isnan(layer.sigma_a) else sigma_interval(start.A, error)
    return Finding(
        layer=name,
        said=layer,
        s=one.s,
        elsewhere=tuple(s for s, limit in within if abs(s - one.s) > (limit + tolerance) * abs(one.s)),
        tolerance=tolerance,
        residual=residual,
        bound=bound,
        reading=readings(one.s, layer, tolerance),
        dtype=found,
        as_one=as_one,
        starts_at_zero=None if start is None else not np.any(start.B),
        sigma=sigma,
        drawn=() if sigma is None else initialisers(sigma, layer.shape[1], layer.r),
    )


def _followed(name: str, probes: Mapping[str, Probes]) -> tuple[str, ...]:
    """The other layers whose factors explain this one's outputs, where its own do not."""
    if _explains(name, name, probes):
        return ()
    shapes = [x.shape for x in probes[name].full[1:3]]
    return tuple(
        other
        for other, x in probes.items()
        if other != name and [z.shape for z in x.full[1:3]] == shapes and _explains(other, name, probes)
    )


def _explains(other: str, name: str, probes: Mapping[str, Probes]) -> bool:
    seen, *_ = _with_factors_of(other, name, probes)
    return fitted_scaling(seen).residual <= min(0.5, rounding_bound(seen, EPSILON["bfloat16"]))


def _with_factors_of(other: str, name: str, probes: Mapping[str, Probes]) -> list[Observation]:
    pairs = zip(probes[name].all, probes[other].all, strict=True)
    return [seen._replace(A=x.A, B=x.B) for seen, x in pairs]


def _contradictions(found: tuple[Finding, ...]) -> Iterator[str]:
    """Name what is wrong, the form of the map before its numbers."""
    for x in found:
        yield from _of_map(x, found)
    for x in found:
        if x.starts_at_zero is False and x.said.b_is_zero:
            yield f"layer {x.layer!r}: B is not 0 at the start"
        if x.sigma is not None and not x.sigma.holds(x.said.sigma_a):
            fits = f"it fits {'; '.join(x.drawn)}" if x.drawn else "no initialiser that is known fits"
            yield (
                f"layer {x.layer!r}: σ_A is {_inside(x.sigma)}, of {x.said.r * x.said.shape[1]} entries, and is said "
                f"to be {x.said.sigma_a:.4g}; {fits}"
            )
        if x.said.dtype and x.dtype and x.said.dtype not in x.dtype:
            yield (f"layer {x.layer!r}: its product is in {' or '.join(x.dtype)}, and is said to be in {x.said.dtype}")


def _of_map(x: Finding, found: tuple[Finding, ...]) -> Iterator[str]:
    if not x.s and not x.residual:
        rest = f", in {sum(not y.s for y in found)} of {len(found)} layers"
        yield f"layer {x.layer!r}: its output does not change with B: s = 0, and is said to be {_said(x.said)}{rest}"
        return
    if x.residual > x.bound:
        yield (
            f"layer {x.layer!r}: y(A, B) − y(A, 0) is not s·BAx for any s: {x.residual:.2g} of it is left over, where "
            f"rounding leaves {x.bound:.2g} at most"
        )
        return
    if x.elsewhere:
        yield (
            f"layer {x.layer!r}: s is not one number: {x.s:.6g} with one direction of the rank and large B, and "
            f"{', '.join(f'{s:.6g}' for s in x.elsewhere)} with other factors or inputs"
        )
    if x.as_one and x.said.tied_to not in x.as_one:
        yield f"layer {x.layer!r}: changes with the factors of {', '.join(map(repr, x.as_one))}, and not with its own"
    if x.said.tied_to and not x.as_one and not any(x.layer in y.as_one for y in found if y.layer == x.said.tied_to):
        yield f"layer {x.layer!r}: is said to be tied to {x.said.tied_to!r}, and has factors of its own"
    if not _as_said(x):
        reading = " or ".join(f"{z} ({READINGS[z].why})" for z in x.reading)
        right = sum(map(_as_said, found))
        reach = f"; {right} of {len(found)} layers have the s that is said" if right else ""
        yield (
            f"layer {x.layer!r}: s is {x.s:.6g}, and is said to be {_said(x.said)}"
            f"{': as if it were ' + reading if reading else ''}{reach}"
        )


def _of_base(framework: Framework, found: tuple[Finding, ...]) -> Iterator[str]:
    """Whether y(A, 0) is W₀x + b: what a bias leaves is W₀x, and A has no part in it."""
    if framework.base is None:
        return
    seen = without_b(framework)
    for x in found:
        inputs, with_a, without_a, zero = seen[x.layer]
        plain, rest = inputs @ np.asarray(framework.base[x.layer], float).T, with_a - zero
        sizes = [float(np.linalg.norm(y)) for y in (plain, with_a, zero)]
        bound = EPSILON[x.dtype[-1] if x.dtype else "bfloat16"] * (inputs.shape[1] ** 0.5 * sizes[0] + sum(sizes[1:]))
        if (off := float(np.linalg.norm(rest - plain))) > bound:
            yield (
                f"layer {x.layer!r}: y(A, 0) is not W₀x + b: it differs by {off:.2g} in the norm, where rounding "
                f"leaves {bound:.2g} at most of {sizes[0]:.2g}"
            )
        elif (off := float(np.linalg.norm(with_a - without_a))) > bound:
            yield f"layer {x.layer!r}: y(A, 0) differs by {off:.2g} from y(0, 0), and A alone must not change it"


def _as_said(x: Finding) -> bool:
    return abs(x.s - x.said.s) <= x.tolerance * max(abs(x.s), x.said.s)


def _saved(framework: Framework, folder: str | Path, found: Mapping[str, Finding]) -> tuple[list[str], list[str]]:
    """Whether s·BA of a file is what is run: contradictions, and what could not be told."""
    stored, factors = stored_layers(folder)
    wrong = [f"layer {x!r}: is saved, and is not among what is run" for x in sorted(stored.keys() - found.keys())]
    untold = []
    for name, seen in change_at(framework, framework.state).items():
        if name not in stored:
            wrong.append(f"layer {name!r}: is run, and is not among what is saved")
            continue
        A, B = factors[name]
        if (A.shape[1], len(B)) != (seen.A.shape[1], len(seen.B)):
            shape = (len(B), A.shape[1])
            wrong.append(f"layer {name!r}: is saved for W of shape {shape}, and is run at {found[name].said.shape}")
            continue
        epsilon = max(EPSILON["float32"], *(EPSILON[x] for x in found[name].dtype or ("bfloat16",)))
        bound = rounding_bound(seen, 2 * epsilon)
        if not np.any(seen.change) and not np.any(B):
            untold.append(f"layer {name!r}: B = 0, so that any s would be saved alike")
            continue
        if bound >= 1:
            untold.append(f"layer {name!r}: s·BAx is lost in the rounding of W₀x")
            continue
        times = fitted_scaling(seen._replace(A=A, B=B * stored[name].s))
        wrong += _not_the_same(name, stored[name].s, times, bound, found[name])
    return wrong, untold


def _not_the_same(name: str, s: float, times: Fit, bound: float, x: Finding) -> Iterator[str]:
    """`times` is by how much s·BA of the file, with its own s, is multiplied to be what is run."""
    if times.residual > bound:
        left = f"{times.residual:.2g} of y(A, B) − y(A, 0) is left over"
        yield f"layer {name!r}: what is saved is not what is run for any s: {left}"
    elif abs(times.s - 1) > bound:
        more = 1 / times.s if times.s else math.inf
        folded = bool(x.s) and abs(more / x.s - 1) <= bound
        why = ": as if s had been folded into B, and were applied once more" if folded else ""
        yield f"layer {name!r}: s·BA as saved, with s = {s:.6g}, is {more:.6g} times what is run, s = {x.s:.6g}{why}"


def _notes(found: tuple[Finding, ...]) -> Iterator[str]:
    """Name what cannot be told apart at these numbers."""
    alike = sorted({x.reading for x in found if len(x.reading) > 1})
    for reading in alike:
        yield f"{', '.join(reading)} are one number at this α and r, and are not told apart"
    for drawn in sorted({x.drawn for x in found if len(x.drawn) > 1}):
        yield f"{', '.join(drawn)} are not told apart by so few entries"
    for x in found:
        if x.s and x.tolerance >= 1:
            yield f"layer {x.layer!r}: s·BAx is lost in the rounding of W₀x, so that s is not told"
    if any(x.starts_at_zero is None for x in found):
        yield "σ_A and B = 0 are of the start, which is not shown"


def _said(layer: Layer) -> str:
    alpha = f"{layer.alpha:.6g}"
    return f"{'α/√r' if layer.rslora else 'α/r'} = {alpha}/{'√' if layer.rslora else ''}{layer.r} = {layer.s:.6g}"


def _inside(sigma: SigmaInterval) -> str:
    return f"{sigma.measured:.4g} [{sigma.low:.4g}, {sigma.high:.4g}]"


def _table(x: Certificate) -> Table:
    first = f"contradiction: {x.contradictions[0]}" if x.contradictions else "nothing contradicts its configuration"
    more = f" (and {len(x.contradictions) - 1} more)" if len(x.contradictions) > 1 else ""
    header = ("layer", "W", "s", "said", "s is", "σ_A", "A is", "B at the start", "product in", "left over")
    rows = [
        (
            printable(y.layer),
            "×".join(map(str, y.said.shape)),
            number(y.s),
            number(y.said.s),
            " or ".join(y.reading) or "–",
            "–" if y.sigma is None else _inside(y.sigma),
            " or ".join(z.partition(",")[0] for z in y.drawn) or "–",
            {None: "–", True: "0", False: "not 0"}[y.starts_at_zero],
            " or ".join(y.dtype) or "–",
            number(y.residual),
        )
        for y in x.layers
    ]
    title = "\n  ".join([f"{printable(x.framework)}: {printable(first)}{more}", *(f"note: {z}" for z in x.notes)])
    return Table(title, header, rows)


displayed_as(_table)(Certificate)
