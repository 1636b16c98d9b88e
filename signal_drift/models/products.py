"""Reads from the trace of a model whether a kernel is used as the matrix of y = W x and in no other way.

The equations that JAX traces are followed from the kernels on. A kernel may be transposed, reshaped, cast and indexed
along the axes that stack layers, and it may go through scan, vmap, jit, remat and cond; it has to end in products that
contract exactly its input axes. Anything else (a scale on the kernel, a norm of it, a second use as Wᵀ) is named. It is
exact and holds at every point, as no number is computed.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from jax.extend.core import Literal

from signal_drift.models.kernel_layout import Layout

Equation = Any


class Kernel(NamedTuple):
    """Holds the name, the shape (stacks first) and the layout of the parameter that is followed."""

    name: str
    shape: tuple[int, ...]
    layout: Layout

    @property
    def stacked(self) -> int:
        """Return the number of leading axes that stack layers."""
        return len(self.shape) - len(self.layout.shape)

    @property
    def inputs(self) -> set[int]:
        """Return the input axes, stacks counted."""
        return {i + self.stacked for i in self.layout.inputs}


class Piece(NamedTuple):
    """Holds an axis of a kernel, or a part of one that a reshape has split, with its size."""

    axis: int
    size: int


class View(NamedTuple):
    """Holds a kernel, and for every axis of an array which pieces of the kernel lie there, in row-major order."""

    kernel: Kernel
    axes: tuple[tuple[Piece, ...], ...]

    def only_stacks(self, axes: Sequence[int]) -> bool:
        """Say whether nothing but axes that stack layers lies on these axes of the array."""
        return all(piece.axis < self.kernel.stacked for i in axes for piece in self.axes[i])


class OtherUse(Exception):  # noqa: N818  # it is an answer, caught below
    """Carries the kernel's name and the use that is no product y = W x."""


def other_use(traced: Any, kernels: Sequence[Kernel]) -> tuple[str, str] | None:
    """Return a kernel's name and its first use that is no y = W x, or None; the kernels are the first arguments."""
    jaxpr = traced.jaxpr
    views = [View(k, tuple((Piece(i, n),) if n > 1 else () for i, n in enumerate(k.shape))) for k in kernels]
    try:
        outputs = _follow(jaxpr, [*views, *[None] * (len(jaxpr.invars) - len(views))])
        for view in filter(None, outputs):
            raise OtherUse(view.kernel.name, "it is among the outputs")
    except OtherUse as found:
        return found.args[0], found.args[1]
    return None


Views = list[View | None]


def _follow(jaxpr: Any, arguments: Views) -> Views:
    """The views that come out of a traced function, from those that go in."""
    views: dict[Any, View | None] = dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> View | None:
        return None if isinstance(atom, Literal) else views.get(atom)

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if any(inputs):
            rule = RULES.get(equation.primitive.name, _unknown)
            views |= zip(equation.outvars, rule(equation, inputs), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _unknown(equation: Equation, inputs: Views) -> Views:
    view = next(filter(None, inputs))
    raise OtherUse(view.kernel.name, f"it is used in `{equation.primitive.name}` (at {_place(equation)})")


def _place(equation: Equation) -> str:
    """The user's line that the equation comes from, as far as it is known."""
    frames = getattr(equation.source_info.traceback, "frames", ())
    own = (f for f in frames if not any(x in f.file_name for x in ("/jax/", "/flax/", "/signal_drift/")))
    frame = next(own, None)
    return f"{frame.file_name.rpartition('/')[2]}:{frame.line_num}" if frame else "an unknown line"


def _same(equation: Equation, inputs: Views) -> Views:
    return list(inputs)


def _transpose(equation: Equation, inputs: Views) -> Views:
    view = inputs[0]
    return [view and View(view.kernel, tuple(view.axes[i] for i in equation.params["permutation"]))]


def _reshape(equation: Equation, inputs: Views) -> Views:
    """Regroups the pieces in their row-major order, and splits one where an axis of the array ends within it."""
    view, shape = inputs[0], equation.outvars[0].aval.shape
    if view is None or equation.params.get("dimensions"):
        return _unknown(equation, inputs)
    left, axes = [piece for group in view.axes for piece in group], []
    if prod(shape) != _size(left):
        return _unknown(equation, inputs)
    for n in shape:
        group: list[Piece] = []
        while _size(group) < n:
            axis, size = left.pop(0)
            wanted = n // _size(group)
            if size > wanted:
                if n % _size(group) or size % wanted:
                    return _unknown(equation, inputs)
                left.insert(0, Piece(axis, size // wanted))
                size = wanted
            group.append(Piece(axis, size))
        if _size(group) != n:
            return _unknown(equation, inputs)
        axes.append(tuple(group))
    return [View(view.kernel, tuple(axes))]


def _size(pieces: Sequence[Piece]) -> int:
    return prod(piece.size for piece in pieces)


def _broadcast(equation: Equation, inputs: Views) -> Views:
    view = inputs[0]
    if view is None:
        return [None]
    axes: list[tuple[Piece, ...]] = [()] * len(equation.params["shape"])
    for i, j in enumerate(equation.params["broadcast_dimensions"]):
        axes[j] = view.axes[i]
    return [View(view.kernel, tuple(axes))]


def _squeeze(equation: Equation, inputs: Views) -> Views:
    view, gone = inputs[0], equation.params["dimensions"]
    return [view and View(view.kernel, tuple(axes for i, axes in enumerate(view.axes) if i not in gone))]


def _slice(equation: Equation, inputs: Views) -> Views:
    """A slice of the stack, none of a layer."""
    view, before, after = inputs[0], equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    cut = [i for i, (m, n) in enumerate(zip(before, after, strict=True)) if m != n]
    if view is None or any(inputs[1:]) or not view.only_stacks(cut):
        return _unknown(equation, inputs)
    return [View(view.kernel, tuple(() if i in cut else axes for i, axes in enumerate(view.axes)))]


def _dot_general(equation: Equation, inputs: Views) -> Views:
    """The end: y = W x, W of one kernel, contracted over all of its inputs and nothing else."""
    (contract, batch) = equation.params["dimension_numbers"]
    if all(inputs):
        return _unknown(equation, inputs)
    side = 0 if inputs[0] else 1
    view = inputs[side]
    assert view is not None
    over: dict[int, int] = {}
    for piece in (piece for i in contract[side] for piece in view.axes[i]):
        over[piece.axis] = over.get(piece.axis, 1) * piece.size
    wanted = {a: view.kernel.shape[a] for a in sorted(view.kernel.inputs) if view.kernel.shape[a] > 1}
    if over != wanted or not view.only_stacks(batch[side]):
        axes = f"its axes {sorted(over)} are summed over in place of {list(wanted)}"
        raise OtherUse(view.kernel.name, f"{axes} (at {_place(equation)})")
    return [None]


def _call(equation: Equation, inputs: Views) -> Views:
    """A function within: compiled, rematerialised, or with a derivative of its own."""
    p = equation.params
    inner = next(p[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in p)
    return _follow(getattr(inner, "jaxpr", inner), inputs)


def _scan(equation: Equation, inputs: Views) -> Views:
    """Follow a loop: views iterated over lose the leading axis, which has to stack layers; no kernel may be carried.

    The outputs that have an axis more outside than within are stacked by the scan, the others are the carry.
    """
    jaxpr = getattr(equation.params["jaxpr"], "jaxpr", equation.params["jaxpr"])
    arguments: Views = []
    for view, outside, inside in zip(inputs, equation.invars, jaxpr.invars, strict=True):
        if view is None or outside.aval.shape == inside.aval.shape:
            arguments.append(view)
        elif view.only_stacks([0]):
            arguments.append(View(view.kernel, view.axes[1:]))
        else:
            return _unknown(equation, inputs)
    outputs = _follow(jaxpr, arguments)
    for i, (view, outside, inside) in enumerate(zip(outputs, equation.outvars, jaxpr.outvars, strict=True)):
        if view is None:
            continue
        if outside.aval.shape == inside.aval.shape:
            return _unknown(equation, inputs)
        within = {piece.axis for axes in view.axes for piece in axes}
        stacks = [Piece(a, n) for a, n in enumerate(outside.aval.shape[:1] * view.kernel.stacked) if a not in within]
        outputs[i] = View(view.kernel, (tuple(stacks[-1:]), *view.axes))
    return outputs


def _cond(equation: Equation, inputs: Views) -> Views:
    found = [_follow(branch.jaxpr, inputs[1:]) for branch in equation.params["branches"]]
    return found[0] if all(views == found[0] for views in found) else _unknown(equation, inputs)


RULES = {
    "transpose": _transpose,
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "slice": _slice,
    "dynamic_slice": _slice,
    "dot_general": _dot_general,
    "scan": _scan,
    "cond": _cond,
} | dict.fromkeys(("jit", "remat2", "checkpoint", "closed_call", "custom_jvp_call", "custom_vjp_call"), _call)
RULES |= dict.fromkeys(("convert_element_type", "copy", "optimization_barrier", "sharding_constraint"), _same)
