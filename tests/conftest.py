"""Strict numerics before anything is imported: float64 is the truth, and products are never rounded to TF32."""

import os

# One BLAS thread per pytest worker, which inherits this: threads that wait for a busy core spin, and made
# np.linalg.eigh of a 200×200 matrix up to a hundred times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_configure(config):
    """nnx.State is annotated with typing.Hashable, of which beartype disapproves; neither is ours to mend."""
    config.addinivalue_line("filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def compiled_code_is_let_go():
    """Programs of one file are of little use to the next, and hundreds of them take gigabytes; the disk keeps them."""
    yield
    jax.clear_caches()


@pytest.fixture
def untyped():
    """Take the type checker away that the tests switch on, as a user has it."""
    import jaxtyping  # not before pytest has set up its filters

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
