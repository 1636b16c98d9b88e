# %% [markdown]
# # Your own model
#
# Any flax.nnx model and any loss: choose the layers that get adapters, and take the same Hessians apart. Here a small
# transformer classifier on scikit-learn's digits; replace it by yours.

# %% [markdown]
# The size of everything below. `SIZE = "paper"` takes the transformer of the experiments and all digits.

# %%
import os

SIZE = os.environ.get("SIGNAL_DRIFT_SIZE", "default")
width, blocks, samples, rank, steps = {
    "quick": (4, 1, 20, 1, 5),
    "default": (12, 2, 200, 4, 60),
    "paper": (12, 2, 1797, 4, 300),
}[SIZE]

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

jax.config.update("jax_enable_x64", True)  # exact Hessians need float64
jax.config.update("jax_default_matmul_precision", "highest")

import signal_drift as sd
from experiments.ledger import table
from signal_drift.models.transformer import TransformerClassifier
from signal_drift.plotting import COLOR, STYLE
from signal_drift.propositions import check_all, failures
from signal_drift.propositions.subject import Instance

plt.rcParams.update({**STYLE, "figure.dpi": 70})

# %% [markdown]
# ## A model, a loss, and the layers that get adapters
#
# `sd.base_and_forward(model, layers)` returns the frozen matrices $W_0$ of the chosen layers and a function of them. Layers
# are chosen by a pattern of their path or by a function of path and module. A loss is any function of the dict of weights.

# %%
images, labels = load_digits(return_X_y=True)
x, y = jnp.asarray(images[:samples] / 16), jnp.asarray(labels[:samples])
model = TransformerClassifier(64, 10, tokens=8, width=width, heads=2, blocks=blocks, rngs=nnx.Rngs(0))

every, _ = sd.base_and_forward(model)
print("layers:", *(f"{path} {W.shape}" for path, W in every.items()), sep="\n  ")
base, forward = sd.base_and_forward(model, "*attention*")
print("adapted:", *base, sep="\n  ")


def loss(weights):
    return -jnp.mean(jax.nn.log_softmax(forward(weights, x))[jnp.arange(len(y)), y])


# %%
adapters = sd.init_adapters(jax.random.key(0), base, rank)
s = 16 / rank  # α = 16
parts = sd.decompose(loss, base, adapters, s)
parts

# %% [markdown]
# ## The ends of the spectra, with a certificate
#
# No matrix is built: `sd.extreme_eigenvalues` multiplies by the operators and says how far off a value can be (its residual)
# and whether an eigenvalue may have been missed (`converged`). The same call works where no dense matrix would fit.

# %%
ends = {
    name: sd.extreme_eigenvalues(getattr(parts, name), which="both") for name in ("task", "signal", "drift", "lora")
}
for name, found in ends.items():
    print(f"H_{name}: {found}\n")

# %% [markdown]
# The trace, exactly and from random vectors with its standard error, and the law of P3 for its expectation over $A$: with one
# $\sigma_A$ and one width for all layers it is $\alpha^2(\sigma_A^2/r)\,\mathrm{Tr}\,H_\ell$.

# %%
sigma_a = width**-0.5
print(f"Tr H_Signal = {sd.trace(parts.signal):.6g}; from 60 products {sd.estimate_trace(parts.signal, probes=60)}")
print(
    f"s²·r·σ_A²·Tr H_ℓ = {s**2 * rank * sigma_a**2 * sd.trace(parts.task):.4g}, expected over draws of A (this is one draw)"
)

# %% [markdown]
# ## Layer by layer
#
# The block of each layer: which of them carries the curvature, and the α that V2 gives it.

# %%
views = sd.layer_views(parts, adapters)
views

# %%
figure, panel = plt.subplots(figsize=(9, 0.5 * len(views) + 1.6), layout="constrained")
panel.use_sticky_edges = False
for offset, name, label in ((-0.2, "signal", "$H_{Signal}$"), (0.2, "lora", "$H_{LoRA}$")):
    ends = np.array([(getattr(view, name).smallest, getattr(view, name).largest) for view in views])
    panel.barh(
        np.arange(len(views)) + offset, ends[:, 1] - ends[:, 0], 0.35, ends[:, 0], color=COLOR[name], label=label
    )
panel.axvline(0, color=COLOR["prediction"], lw=1)
panel.set_yticks(range(len(views)), [view.layer for view in views])
panel.set(xlabel="from λmin to λmax of the layer's block", ylim=(len(views) - 0.4, -0.6))
panel.legend()
plt.show()

# %% [markdown]
# ## Along training
#
# Signal and drift of every update, under two ways of moving faster: α and η.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
for name, alpha, eta, hue in (
    ("α = 16, η = 1e-3", 16, 1e-3, "task"),
    ("α = 256", 256, 1e-3, "signal"),
    ("η = 16e-3", 16, 16e-3, "drift"),
):
    run = sd.train(loss, base, adapters, alpha / rank, optax.adam(eta), steps)
    left.plot(run.loss, color=COLOR[hue], label=name)
    right.semilogy(np.arange(2, steps + 1), (run.signal_norm / run.drift_norm)[1:], color=COLOR[hue], label=name)
left.set(xlabel="step", ylabel="loss")
right.set(xlabel="step", ylabel=r"$\|\Delta W_{Signal}\|\,/\,\|\Delta W_{Drift}\|$")
left.legend()
plt.show()

# %% [markdown]
# ## Does the theory hold on it?
#
# `check_all` holds every algebraic statement against your model: two independent computations, a derived tolerance, and a
# deliberately wrong control that must fail. Where a statement assumes something that your model does not have, it says so.

# %%
delta = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), adapters)
theta = jax.tree.map(jnp.add, adapters, delta)  # B ≠ 0
checks = check_all(Instance(loss, base, theta, s, delta))
assert not failures(checks)  # one line for each statement that should hold and does not
checks

# %% [markdown]
# A model in which the weights are not $W_0 + s\,BA$ is found out. Here the adapter's product goes through a tanh:

# %%
from signal_drift.propositions import update_has_no_remainder


def bent(base, adapters, s):
    return {k: base[k] + s * jnp.tanh(B @ A) for k, (A, B) in adapters.items()}


update_has_no_remainder(Instance(loss, base, theta, s, delta, weights_of=bent))

# %% [markdown]
# ## The ledger
#
# Every statement of the paper with its verdict at full size. `make reproduce` writes it to `results/`; the one of the
# reference run is in `docs/`.

# %%
path = Path("../docs/ledger.json")
table.read(path) if path.exists() else "No ledger here: clone the project, or run `make reproduce`."
