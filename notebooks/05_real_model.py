# %% [markdown]
# # A real model
#
# The same questions, asked of a sentence encoder that somebody pretrained: all-MiniLM-L6-v2, 22 million parameters, with
# LoRA on its 36 linear layers, and text whose sentiment people rated. In a clone of the project `make notebooks` installs what
# is needed and `make minilm` fetches both once; without them a tiny encoder with random weights stands in, and the numbers
# below mean nothing.
#
# The size of everything below. `SIZE = "paper"` takes the texts of the experiments.

# %%
import os
from dataclasses import replace

from experiments.problems.fetch import PACKAGES, cache, missing
from experiments.problems.minilm import MiniLM

SIZE = os.environ.get("SIGNAL_DRIFT_SIZE", "default")
fetched = SIZE != "quick" and not missing(PACKAGES["minilm"], cache())
texts, rank, trained_on, steps, corner = {
    "quick": (4, 2, 8, 3, 3),
    "default": (4, 8, 16, 6, 6),
    "paper": (8, 8, 64, 20, 8),
}[SIZE]
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
# the encoder's linear layers. The dashed line is where the head would agree with the people.

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
# $H_{Signal}$ and $H_{LoRA}$ have hundreds of thousands of rows; no matrix is built. If the premise of P2 held ($H_\ell$ without
# negative eigenvalues), the signal would have none below zero; $H_{LoRA}$ has some in any case at $B = 0$ (X13). If α = 16 purifies, the two
# spectra end alike.

# %%
ends = {name: sd.extreme_eigenvalues(getattr(parts, name), which="both", tolerance=0.01) for name in ("signal", "lora")}
for name, found in ends.items():
    print(f"H_{name}: {found}\n    λmin/λmax = {found.values[0] / found.values[-1]:.3f}\n")

# %% [markdown]
# $H_{Drift}$ needs no search: its eigenvalues are $\pm s\,\sigma_i(G_l)$, each r times (X1). So it can be held against the signal
# layer by layer, and X16 gives the α at which its largest eigenvalue equals the signal's.

# %%
gradient = jax.grad(loss)(encoder.base)
drift = {k: s * float(np.linalg.norm(G, 2)) for k, G in gradient.items()}
names = sorted(drift, key=lambda k: -drift[k])[:8]
figure, panel = plt.subplots(figsize=(8, 3.4), layout="constrained")
panel.barh(names, [drift[k] for k in names], color=COLOR["drift"])
panel.axvline(
    ends["signal"].values[-1], color=COLOR["signal"], ls="--", label=r"$\lambda_{max}[H_{Signal}]$," "\nall layers"
)
panel.set(xlabel=r"$\lambda_{max}$ of the layer's $H_{Drift}$", title="the eight largest at α = 16")
panel.invert_yaxis()
figure.legend(loc="outside right upper")
plt.show()
critical = rank * s * drift[names[0]] / ends["signal"].values[-1]  # at s: drift ∝ s, signal ∝ s²
print(f"drift and signal would have the same λmax at α = {critical:.2g}; here α = {rank * s:g}")

# %% [markdown]
# ## What α should be, layer by layer
#
# V2 is $\alpha = \sqrt r/\sigma_A$ with the σ_A of each layer. The same rule gives three numbers, according to how $A$ is drawn and
# how α is written:
#
# - in this notebook $\sigma_A = 1/\sqrt{d_{in}}$, so $\alpha = \sqrt{d_{in}\,r}$ with $s = \alpha/r$;
# - PEFT draws $A$ Kaiming-uniform, $\sigma_A = 1/\sqrt{3 d_{in}}$, so α has to be √3 times larger for the same curvature;
# - and the config sets `use_rslora`, with which PEFT takes $s = \mathtt{lora\_alpha}/\sqrt r$: so it says $\alpha/\sqrt r$, which does
#   not depend on the rank. The other layers, with another $d_{in}$, are in its `alpha_pattern`.

# %%
from signal_drift.peft.export import peft_config

shapes = {k: W0.shape for k, W0 in encoder.base.items()}
for d_in in sorted({d_in for _, d_in in shapes.values()}):
    here, kaiming = sd.alpha_base(rank, d_in**-0.5), sd.alpha_base(rank, sd.kaiming_sigma(d_in))
    print(
        f"d_in = {d_in:4}: α = {here:.4g} here, {kaiming:.4g} with PEFT's A, lora_alpha = {kaiming / rank**0.5:.4g} with rsLoRA"
    )
config = peft_config(shapes, rank, "V2")
written = {name: f"{config[name]:.4g}" for name in ("r", "lora_alpha")} | {"use_rslora": config["use_rslora"]}
print("\nwritten:", *(f"{name} = {value}" for name, value in written.items()), sep="\n  ")
print(f"  alpha_pattern with {len(config['alpha_pattern'])} other layers")

# %% [markdown]
# ## The first steps of training
#
# Adam ($\epsilon \to 0$), on more texts than above and for so few steps that the loss stays far from zero: where everything is
# fitted nothing can be told apart. Once four times the α, once four times the η. In single precision, which suffices here.

# %%
single = problem.encoder("float32")
fitted = rating_error(single.forward, single.head, single.training.at(np.arange(texts, texts + trained_on)))
first = problem.adapters(0, rank, "float32")
smallest = float(np.finfo(np.float32).tiny)


@jax.jit
def train(alpha, eta):
    return sd.train(fitted, single.base, first, alpha / rank, optax.adam(eta, eps=smallest), steps)


settings = {
    "α = 16, η = 2e-5": (16, 2e-5, {"color": COLOR["task"], "marker": "."}),
    "α × 4": (64, 2e-5, {"color": COLOR["signal"], "marker": "o", "mfc": "none", "ms": 9}),
    "η × 4": (16, 8e-5, {"color": COLOR["drift"], "marker": "s", "ls": "--"}),
}
runs = {name: train(np.float32(alpha), np.float32(eta)) for name, (alpha, eta, _) in settings.items()}

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
for name, run in runs.items():
    left.plot(run.loss, label=name, **settings[name][-1])
    right.semilogy(np.arange(2, steps + 1), (run.signal_norm / run.drift_norm)[1:], **settings[name][-1])
left.set(xlabel="step", title=f"loss on {trained_on} texts (lower is better)", ylim=(0, None))
right.set(xlabel="step", title=r"$\|\Delta W_{Signal}\|\,/\,\|\Delta W_{Drift}\|$ (P4: η × 4 has a quarter)")
figure.legend(loc="outside lower center", ncols=3)
plt.show()
reference = runs["α = 16, η = 2e-5"]
for name, run in runs.items():
    ratio = (run.signal_norm[1] / run.drift_norm[1]) / (reference.signal_norm[1] / reference.drift_norm[1])
    print(
        f"{name:17} loss {run.loss[0]:.3f} → {run.loss[-1]:.3f}; signal/drift at step 2, over the first run's: {ratio:.3f}"
    )

# %% [markdown]
# The two faster runs share their first steps: from $B = 0$ only $B$ moves at first, and on it α × 4 and η × 4 do the same (X4).
# What tells them apart so early is the drift, in the right panel. Its share is small in all three, so that it has no say in the
# loss yet; which of the two trains better in the end takes full runs, tuned, and is in the ledger.

# %% [markdown]
# ## Does the theory hold on it?
#
# The statements that need no matrix run on the whole encoder, through the same functions as on the MLP.

# %%
delta = optax.tree.scale(1e-3, optax.tree.random_like(jax.random.key(1), adapters))
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

# %% [markdown]
# ## What was learned
#
# - **The algebra is that of the MLP.** The statements hold on a pretrained transformer to rounding, on the whole encoder where
#   no matrix is needed and on a corner of it where one is.
# - **The premise of P2 fails here too.** The certified smallest eigenvalue of $H_{Signal}$ is negative, so $H_\ell$ has negative
#   curvature although the encoder is pretrained: this loss is not the one it was trained on.
# - **At α = 16 the drift is already a small part of λmax,** but not of λmin: purification is relative to the largest eigenvalue.
# - **V2 is one rule with several spellings.** What has to be the same in all is $s\,\sigma_A$; α alone means nothing without
#   how $A$ is drawn and whether $s = \alpha/r$ or $\alpha/\sqrt r$.
# - **A few steps cannot rank α and η.** From $B = 0$ they start alike; what differs at once is the drift.
