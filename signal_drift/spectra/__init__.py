"""Open this for eigenvalues: all of them, the outermost with a bound, the trace and the density from random vectors.

In float64, which `jax.config.update("jax_enable_x64", True)` has to allow before the weights are made:

>>> import jax, jax.numpy as jnp
>>> from signal_drift.hessians import decompose
>>> from signal_drift.lora import init_adapters
>>> base = {"layer": jnp.zeros((2, 2))}
>>> adapters = init_adapters(jax.random.key(0), base, rank=1)
>>> size = jnp.array([[1.0, 2.0], [3.0, 4.0]])
>>> parts = decompose(lambda weights: jnp.sum(size * weights["layer"] ** 2) / 2, base, adapters, scaling=1.0)
>>> eigenvalues(parts.task).tolist()
[1.0, 2.0, 3.0, 4.0]
>>> trace(parts.task)
10.0
>>> found = extreme_eigenvalues(parts.task, k=1, which="largest")
>>> found.converged, round(float(found.values[0]), 12)
(True, 4.0)
>>> spectral_density(parts.task, probes=5).nodes.shape  # of each probe, as many nodes as there are eigenvalues
(5, 4)
>>> layer_views(parts, adapters)[0].task.largest
4.0
"""

from signal_drift.spectra.exact import eigenvalues, trace
from signal_drift.spectra.extremes import ExtremeEigenvalues, extreme_eigenvalues
from signal_drift.spectra.layers import Block, LayerView, LayerViews, layer_views
from signal_drift.spectra.sharpness import CriticalSharpness, critical_sharpness
from signal_drift.spectra.stochastic import Estimate, SpectralDensity, estimate_trace, spectral_density
from signal_drift.spectra.structure import Structure, structure

__all__ = [
    "Block",
    "CriticalSharpness",
    "Estimate",
    "ExtremeEigenvalues",
    "LayerView",
    "LayerViews",
    "SpectralDensity",
    "Structure",
    "critical_sharpness",
    "eigenvalues",
    "estimate_trace",
    "extreme_eigenvalues",
    "layer_views",
    "spectral_density",
    "structure",
    "trace",
]
