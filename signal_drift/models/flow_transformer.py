"""Defines a small class-conditional transformer that gives the velocity of a flow from noise to images."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from signal_drift.errors import InputError
from signal_drift.errors.arguments import whole
from signal_drift.models.transformer import TransformerBlock

FREQUENCIES = 8
"""Sines and cosines of the time, of periods 2, 1, ½, …"""


class FlowTransformer(nnx.Module):
    """Maps (x, t, class) to a velocity of the shape of x: patches of x → embedding + position + condition → blocks.

    A square image, `side` pixels wide, is read as square tokens, `patch` pixels wide; the condition, added to every
    token, is a vector for the class plus a linear map of sin(πkt), cos(πkt), k = 1, 2, 4, ….

    >>> model = FlowTransformer(8, 10, patch=2, width=4, heads=2, blocks=1, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((3, 64)), jnp.zeros(3), jnp.array([0, 1, 2])).shape
    (3, 64)
    """

    def __init__(
        self,
        side: int,
        classes: int,
        *,
        patch: int,
        width: int,
        heads: int,
        blocks: int,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float64,
    ) -> None:
        sizes = {"side": side, "classes": classes, "patch": patch, "width": width, "heads": heads, "blocks": blocks}
        for name, size in sizes.items():
            whole(name, size, least=1)
        for name, size, of in (("patch", patch, "side"), ("heads", heads, "width")):
            if sizes[of] % size:
                raise InputError(f"{name}: must divide the {of} {sizes[of]}, got {size}")
        self.side, self.patch = side, patch
        tokens = (side // patch) ** 2

        def linear(d_in: int, d_out: int) -> nnx.Linear:
            return nnx.Linear(d_in, d_out, param_dtype=dtype, rngs=rngs)

        self.embed, self.time, self.head = (
            linear(patch**2, width),
            linear(2 * FREQUENCIES, width),
            linear(width, patch**2),
        )
        self.classes = nnx.Embed(classes, width, param_dtype=dtype, rngs=rngs)
        self.position = nnx.Param(jax.random.normal(rngs.params(), (tokens, width), dtype) / width**0.5)
        self.blocks = nnx.List(TransformerBlock(width, heads, 2 * width, rngs=rngs, dtype=dtype) for _ in range(blocks))
        self.norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "n pixels"], time: Float[Array, "n"], label: Int[Array, "n"]
    ) -> Float[Array, "n pixels"]:
        condition = self.time(waves(time)) + jnp.asarray(self.classes.embedding[...])[label]
        y = self.embed(self._patches(x)) + self.position[...] + condition[:, None]
        for block in self.blocks:
            y = block(y)
        return self._image(self.head(self.norm(y)))

    def _patches(self, x: Float[Array, "n pixels"]) -> Float[Array, "n tokens patch"]:
        k = self.side // self.patch
        return x.reshape(-1, k, self.patch, k, self.patch).swapaxes(2, 3).reshape(len(x), k**2, self.patch**2)

    def _image(self, y: Float[Array, "n tokens patch"]) -> Float[Array, "n pixels"]:
        k = self.side // self.patch
        return y.reshape(-1, k, k, self.patch, self.patch).swapaxes(2, 3).reshape(len(y), self.side**2)


def waves(time: Float[Array, "n"]) -> Float[Array, "n features"]:
    """Return sin(πkt) and cos(πkt) for k = 1, 2, 4, …."""
    angle = jnp.pi * time[:, None] * 2.0 ** jnp.arange(FREQUENCIES, dtype=time.dtype)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
