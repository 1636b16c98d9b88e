# %% [markdown]
# # A real model
#
# The same questions, asked of a sentence encoder that somebody pretrained: all-MiniLM-L6-v2, 22 million parameters, with
# LoRA on its 36 linear layers, and text whose sentiment people rated. `make minilm` fetches both once; without them a tiny
# encoder with random weights stands in, and the numbers below mean nothing.

# %% [markdown]
# The size of everything below. `SIZE = "paper"` takes the texts of the experiments.

# %%
import os
from dataclasses import replace

from experiments.problems import fetch_minilm
from experiments.problems.minilm import MiniLM

SIZE = os.environ.get("SIGNAL_DRIFT_SIZE", "default")
fetched = SIZE != "quick" and not fetch_minilm.missing(fetch_minilm.cache())
texts, rank, steps, corner = {"quick": (4, 2, 3, 3), "default": (4, 8, 15, 6), "paper": (8, 8, 50, 8)}[SIZE]
problem = replace(MiniLM(), head_texts=1024) if fetched else MiniLM().tiny()
print("model:", problem.label)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)  # exact Hessians need float64
jax.config.update("jax_default_matmul_precision", "highest")

import signal_drift as sd
from experiments.problems.minilm import HELD_OUT
from signal_drift.plotting import COLOR, STYLE
from signal_drift.propositions import MATRIX_FREE, check_all, failures
from signal_drift.propositions.check import Checks
from signal_drift.propositions.subject import Instance
from signal_drift.tasks.rating_head import embeddings, rating_error

plt.rcParams.update({**STYLE, "figure.dpi": 70})

# %% [markdown]
# ## What is adapted, to what
#
# The embedding of a text is the mean of its last hidden states; a linear head, fitted to movie snippets by ridge regression
# and then frozen, turns it into a rating between −4 and 4. The loss is the mean squared error on a few texts, as a function of
# the encoder's linear layers.

# %%
encoder = problem.encoder("float64")
some = encoder.training.at(np.arange(texts))
loss = rating_error(encoder.forward, encoder.head, some)

held_out = encoder.judged[HELD_OUT].at(np.arange(min(100, problem.judged)))
rated = embeddings(encoder.forward, encoder.base, held_out) @ encoder.head.weight + encoder.head.bias
figure, panel = plt.subplots(figsize=(5, 4), layout="constrained")
panel.plot(held_out.ratings, rated, "o", color=COLOR["signal"], alpha=0.6)
panel.axline((0, 0), slope=1, color=COLOR["prediction"], ls="--")
panel.set(xlabel="rating by people", ylabel="rating by the head, before any training")
panel.set_title(f"held-out texts, correlation {np.corrcoef(held_out.ratings, rated)[0, 1]:.2f}")
plt.show()

# %%
adapters = problem.adapters(0, rank)
s = 16 / rank  # α = 16
parts = sd.decompose(loss, encoder.base, adapters, s)
parts

# %% [markdown]
# ## The ends of two spectra, with a certificate
#
# $H_{Signal}$ and $H_{LoRA}$ have hundreds of thousands of rows; no matrix is built. Below zero there should be nothing if the
# premise of P2 held, and the two spectra should look alike if α = 16 purifies.

# %%
ends = {name: sd.extreme_eigenvalues(getattr(parts, name), which="both", tolerance=0.01) for name in ("signal", "lora")}
for name, found in ends.items():
    print(f"H_{name}: {found}\n")

# %% [markdown]
# $H_{Drift}$ needs no search: its eigenvalues are $\pm s\,\sigma_i(G_l)$, each r times (X1).

# %%
gradient = jax.grad(loss)(encoder.base)
drift = {k: s * float(np.linalg.norm(G, 2)) for k, G in gradient.items()}
names = sorted(drift, key=lambda k: -drift[k])[:8]
figure, panel = plt.subplots(figsize=(8, 3.4), layout="constrained")
panel.barh(names, [drift[k] for k in names], color=COLOR["drift"])
panel.axvline(ends["signal"].values[-1], color=COLOR["signal"], label=r"$\lambda_{max}[H_{Signal}]$, all layers")
panel.set(xlabel=r"$\lambda_{max}$ of the layer's $H_{Drift}$", title="the eight largest")
panel.invert_yaxis()
panel.legend()
plt.show()

# %% [markdown]
# ## What α should be, layer by layer
#
# V2 is $\alpha = \sqrt r/\sigma_A$ with the σ_A of each layer, here $1/\sqrt{d_{in}}$. `signal_drift.export` writes it as a config
# of PEFT, whose A is Kaiming-uniform.

# %%
from signal_drift.peft.export import peft_config

shapes = {k: W0.shape for k, W0 in encoder.base.items()}
for shape in sorted(set(shapes.values())):
    print(f"layers of shape {shape}: α = {sd.alpha_base(rank, shape[1] ** -0.5):.1f}")
config = peft_config(shapes, rank, "V2")
print({k: config[k] for k in ("r", "lora_alpha", "use_rslora")}, "and", len(config["alpha_pattern"]), "other layers")

# %% [markdown]
# ## Along training
#
# Adam on the same few texts: more α, or more η.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
for name, alpha, eta, hue in (
    ("α = 16, η = 1e-4", 16, 1e-4, "task"),
    ("α = 64", 64, 1e-4, "signal"),
    ("η = 4e-4", 16, 4e-4, "drift"),
):
    run = sd.train(loss, encoder.base, adapters, alpha / rank, optax.adam(eta), steps)
    left.plot(run.loss, color=COLOR[hue], label=name)
    right.semilogy(np.arange(2, steps + 1), (run.signal_norm / run.drift_norm)[1:], color=COLOR[hue], label=name)
left.set(xlabel="step", ylabel="loss")
right.set(xlabel="step", ylabel=r"$\|\Delta W_{Signal}\|\,/\,\|\Delta W_{Drift}\|$")
left.legend()
plt.show()

# %% [markdown]
# ## Does the theory hold on it?
#
# The statements that need no matrix run on the whole encoder, through the same functions as on the MLP.

# %%
delta = jax.tree.map(lambda x: 1e-3 * jnp.ones_like(x), adapters)
theta = jax.tree.map(jnp.add, adapters, delta)  # B ≠ 0
checks = Checks(statement(Instance(loss, encoder.base, theta, s, delta)) for statement in MATRIX_FREE)
assert not failures(checks)
checks

# %% [markdown]
# The others need dense matrices. They hold for any function of any weights: here for a corner of two of the encoder's weights,
# with everything else frozen.

# %%
chosen = sorted(encoder.base)[0], sorted(encoder.base)[-1]
corners = {k: encoder.base[k][:corner, : corner + 2] for k in chosen}


def loss_of_corners(weights):
    moved = {k: encoder.base[k].at[: W.shape[0], : W.shape[1]].set(W) for k, W in weights.items()}
    return loss({**encoder.base, **moved})


small = sd.init_adapters(jax.random.key(1), corners, rank=2)
delta = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), small)
checks = check_all(Instance(loss_of_corners, corners, jax.tree.map(jnp.add, small, delta), 2.0, delta))
assert not failures(checks)
checks
