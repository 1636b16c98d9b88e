"""A map in chunks: the values of a map row by row, in the memory of its result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import signal_drift as sd
from signal_drift.operators.chunks import CHUNK, chunk, map_chunks


@pytest.mark.parametrize("size", [1, 3, 4, 7, 100])
def test_chunks_give_every_row_once(size: int) -> None:
    rows = jnp.arange(7.0)
    image = map_chunks(lambda x: jnp.stack([x, x**2]), rows, size)
    np.testing.assert_array_equal(image, np.stack([np.arange(7.0), np.arange(7.0) ** 2], axis=1))


@pytest.mark.parametrize(
    ("left", "columns"), [(0, 1), (1000, 1), (1000 + 2 * 7 * 800, 7), (1000 + 2 * 7 * 800 - 2, 6), (10**9, CHUNK)]
)
def test_an_accelerator_takes_as_many_as_half_of_what_is_left_beside_the_result_holds(
    left: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 100 numbers in float64 writes 800 bytes; a CPU takes as many whatever memory there is."""
    v = jax.ShapeDtypeStruct((100,), jnp.float64)
    monkeypatch.setattr("signal_drift.operators.chunks.available_bytes", lambda: left)
    assert chunk(lambda x: 2 * x, v, result=1000) == CHUNK
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chunk(lambda x: 2 * x, v, result=1000) == columns


def test_chunks_are_differentiable() -> None:
    """∇ Σ_i x_i³ = 3x²; where the last chunk repeats a row, that row counts once."""
    x = jnp.arange(1.0, 6.0)
    gradient = jax.grad(lambda x: jnp.sum(map_chunks(lambda t: t**3, x, 2)))(x)
    np.testing.assert_allclose(gradient, 3 * np.arange(1.0, 6.0) ** 2, rtol=1e-14)


def test_rest_of_the_rows_needs_no_second_copy_of_the_result() -> None:
    """1001 rows in tens: `lax.map` needs the result once more, and is the negative control."""
    rows, size = jnp.ones((1001, 4)), 10

    def scratch(mapped) -> float:
        analysis = jax.jit(mapped).lower(rows).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes / analysis.output_size_in_bytes

    def image(row):
        return jnp.tile(row, 500)

    assert scratch(lambda rows: map_chunks(image, rows, size)) < 0.1
    assert scratch(lambda rows: jax.lax.map(image, rows, batch_size=size)) > 0.9


@pytest.mark.parametrize("groups", [1, 2])
def test_a_map_that_jax_cannot_take_in_blocks_is_taken_row_by_row(groups: int) -> None:
    """`ragged_dot`, the product of a mixture of experts, has no rule for a block: its Hessian is that of `@`."""
    W = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    theta = {"w": sd.Adapter(jnp.ones((1, 2)) / 4, jnp.ones((2, 1)) / 2)}
    X, sizes = jnp.array([[1.0, 2.0], [0.5, -1.0]]), jnp.full(groups, 2 // groups, jnp.int32)

    def experts(w: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum(jax.lax.ragged_dot(X, jnp.stack([w["w"]] * groups), sizes) ** 2)

    parts = sd.decompose(experts, W, theta, 1.0)
    with pytest.raises(NotImplementedError):
        jax.vmap(parts.task.linearise(parts.task.point))(jnp.eye(4))
    H = np.kron(2 * X.T @ X, np.eye(2))  # of Σ(XW)², row by row
    np.testing.assert_allclose(parts.task.dense(), H, rtol=0, atol=1e-14)
    np.testing.assert_allclose(parts.task @ jnp.eye(4), H, rtol=0, atol=1e-14)
    np.testing.assert_allclose(parts.task.diagonal(), np.diag(H), rtol=0, atol=1e-14)
