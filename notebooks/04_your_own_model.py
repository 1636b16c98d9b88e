# %% [markdown]
# # Your own model
#
# Any flax.nnx model and any loss: choose the layers that get adapters, and take the same Hessians apart. Here a small
# transformer classifier on scikit-learn's digits; replace it by yours. It runs in a clone of the project, where
# `make notebooks` installs all that it needs.
#
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
from signal_drift.propositions import check_all, closed_forms, failures
from signal_drift.propositions.subject import Instance
from signal_drift.propositions.updates import VANISHING_EPSILON

plt.rcParams.update({**STYLE, "figure.dpi": 70})

# %% [markdown]
# ## A model, a loss, and the layers that get adapters
#
# `sd.base_and_forward(model, layers)` returns the frozen matrices $W_0$ of the chosen layers and a function of them. Layers
# are chosen by a pattern of their path or by a function of path and module. A loss is any function of the dict of weights.
#
# The model is **untrained**: its weights are as they were drawn, and only its attention gets adapters. So nothing says that
# $H_\ell$ should be positive; for a model near a minimum it would almost be. Put in your pretrained weights to see that.

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
# $\sigma_A$ and one width for all layers it is $\alpha^2(\sigma_A^2/r)\,\mathrm{Tr}\,H_\ell$. The adapters here are one draw, which
# need not be near the mean. How near is known too: X2 gives the standard deviation over draws of $A$, from the blocks of $H_\ell$.

# %%
sigma_a = width**-0.5
trace = sd.trace(parts.signal)
grams = closed_forms.task_grams(parts.task.dense(), base)
expected = closed_forms.expected_signal_trace(grams, rank, s, sigma_a)
deviation = closed_forms.signal_trace_deviation(grams, rank, s, sigma_a)
print(f"Tr H_Signal = {trace:.4g}; from 60 products {sd.estimate_trace(parts.signal, probes=60)}")
print(f"over draws of A: expected {expected:.4g} (P3), standard deviation {deviation:.3g} (X2)")
print(f"this draw lies {(trace - expected) / deviation:+.1f} standard deviations from the mean")

# %% [markdown]
# One draw of so small a model says little, then: the spread is a third of the mean or more, and beyond two or three standard
# deviations one would start to doubt. Many draws are cheap, and test the law: see [02_spectra](02_spectra.ipynb).

# %% [markdown]
# ## Layer by layer
#
# The block of each layer: which of them carries the curvature, and the α that V2 gives it.

# %%
views = sd.layer_views(parts, adapters)
views

# %%
figure, panel = plt.subplots(figsize=(10.5, 0.5 * len(views) + 1.6), layout="constrained")
panel.use_sticky_edges = False
for offset, name, label in ((-0.2, "signal", "$H_{Signal}$"), (0.2, "lora", "$H_{LoRA}$")):
    ends = np.array([(getattr(view, name).smallest, getattr(view, name).largest) for view in views])
    panel.barh(
        np.arange(len(views)) + offset,
        ends[:, 1] - ends[:, 0],
        0.35,
        ends[:, 0],
        color=COLOR[name],
        hatch={"signal": "", "lora": "///"}[name],
        edgecolor="white",
        label=label,
    )
panel.axvline(0, color=COLOR["prediction"], lw=1)
panel.set_yticks(range(len(views)), [view.layer for view in views])
panel.set(xlabel="from λmin to λmax of the layer's block", ylim=(len(views) - 0.4, -0.6))
panel.set_title("left of the line: negative curvature")
figure.legend(loc="outside right upper")
plt.show()

# %% [markdown]
# ## Along training
#
# Signal and drift of every update of Adam ($\epsilon \to 0$), under two ways of moving sixteen times faster: α and η.

# %%


def adam(eta):
    return optax.adam(eta, eps=VANISHING_EPSILON)


settings = {
    "α = 16, η = 1e-3": (16, adam(1e-3), {"color": COLOR["task"]}),
    "α × 16": (256, adam(1e-3), {"color": COLOR["signal"], "ls": "--"}),
    "η × 16": (16, adam(16e-3), {"color": COLOR["drift"]}),
    "α × 16 and, for A alone, η × 16": (
        256,
        sd.separate_rates(adam(16e-3), adam(1e-3)),
        {"color": COLOR["other"], "ls": "", "marker": "x", "markevery": max(1, steps // 15)},
    ),
}
found = {
    name: sd.train(loss, base, adapters, alpha / rank, optimizer, steps)
    for name, (alpha, optimizer, _) in settings.items()
}

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
for name, run in found.items():
    style = settings[name][-1]
    left.plot(run.loss, label=name, **style)
    right.semilogy(np.arange(2, steps + 1), (run.signal_norm / run.drift_norm)[1:], **style)
left.set(xlabel="step", title="training loss (lower is better)")
right.set(xlabel="step", title=r"$\|\Delta W_{Signal}\|\,/\,\|\Delta W_{Drift}\|$")
figure.legend(loc="outside lower center", ncols=4)
plt.show()


def moved(run):
    """How far A went from its start, relative to it."""
    before, after = ({k: A for k, (A, _) in theta.items()} for theta in (adapters, run.trained))
    return optax.global_norm(jax.tree.map(jnp.subtract, after, before)) / optax.global_norm(before)


for name, run in found.items():
    print(f"{name:32} last loss {run.loss[-1]:.3f}; A moved by {moved(run):.2f} of its norm")

# %% [markdown]
# As the paper says, η costs drift: the ratio falls, while α keeps it. And yet **η ends lower here**. Why? From $B = 0$, α × 16
# does the same as sixteen times the rate of $B$ alone (X4); η × 16 makes $A$ move sixteen times faster as well. The crosses add
# just that to α × 16, and lie on the curve of η × 16, as X4 says they must. So all that separates the two curves is the motion
# of $A$, which brings drift but also lets the r random directions turn to where they are needed. At these rates, on this
# model and for these few steps, that helps more than the drift hurts.
#
# It is one run on one fixed sample, and neither knob is at its best value. Which reaches lower when each is tuned is claim F1b
# in the ledger.

# %% [markdown]
# ## Does the theory hold on it?
#
# `check_all` holds every algebraic statement against your model: two independent computations, a derived tolerance, and a
# deliberately wrong control that must fail. Where a statement assumes something that your model does not have, it says so.

# %%
delta = optax.tree.scale(0.1, optax.tree.random_like(jax.random.key(1), adapters))
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
# `check_all` is about your model. What the paper says of training and tuning needs many runs; those verdicts, for the project's
# own problems, are in the ledger. `make reproduce` writes it to `results/`; that of the reference run is in `docs/`.

# %%
path = Path("../docs/ledger.json")
table.read(path) if path.exists() else "No ledger here: clone the project, or run `make reproduce`."
