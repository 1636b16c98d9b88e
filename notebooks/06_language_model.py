# %% [markdown]
# # A language model
#
# Is the largest Hessian eigenvalue of a LoRA run curvature? On a pretrained decoder, SmolLM2-135M (4-bit-rounded weights) with LoRA
# on all 210 linear layers, and one worked answer to a school question. In a clone of the project `make smollm` fetches both once; without
# them a tiny decoder with random weights stands in, and the numbers below mean nothing.
#
# The size of everything below. `SIZE = "paper"` takes the chats of the experiment `is_it_curvature`.

# %%
import os
from dataclasses import replace

from experiments.problems import fetch
from experiments.problems.smollm import SmolLM

SIZE = os.environ.get("SIGNAL_DRIFT_SIZE", "default")
fetched = SIZE != "quick" and not fetch.missing(fetch.needed("smollm"), fetch.cache())
layers, tolerance, sweeps = {"quick": (2, 0.1, 3), "default": (1, 0.1, 6), "paper": (6, 0.05, 30)}[SIZE]
problem = replace(SmolLM(), pool=64, judged=1) if fetched else replace(SmolLM().tiny(), texts=1)
print("model:", problem.label)

# %%
import jax
import jax.flatten_util
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

jax.config.update("jax_default_matmul_precision", "highest")

import signal_drift as sd
from signal_drift.plotting import COLOR, STYLE
from signal_drift.tasks import Chats, next_token_loss

plt.rcParams.update({**STYLE, "figure.dpi": 70})

# %% [markdown]
# ## The loss
#
# The mean of −ln p over the tokens of the answer, given the question; a function of the 210 matrices. Everything is in float32,
# and the searches below stop at a tenth: enough for what is asked.

# %%
tutor = problem.tutor("float32")
lengths = tutor.training.tokens.shape[1] - np.asarray(tutor.training.answered)[:, ::-1].argmax(axis=1)
shortest = int(lengths.argmin())  # of the chats drawn: what follows costs in proportion to its tokens
chat = Chats(*(x[shortest : shortest + 1, : lengths[shortest]] for x in tutor.training))
base, loss = tutor.base, next_token_loss(tutor.forward, chat)
adapters, alpha, rank = problem.adapters(0, dtype="float32"), 16.0, problem.rank
s = alpha / rank
print(f"loss {float(loss(base)):.3f} over {int(chat.answered.sum())} of {lengths[shortest]} tokens")
print(f"{len(base)} adapted matrices, r = {rank}, α = {alpha:g}")

# %% [markdown]
# ## The drift, from one gradient
#
# At $B = 0$ the eigenvalues of $H_{Drift}$ are $\pm s\,\sigma_i(G_l)$ (X1), $G_l$ the gradient of the loss by the l-th matrix. So λmax of
# the drift is the spectral norm of a gradient: there is no second derivative of the loss in it.

# %%
gradient = jax.grad(loss)(base)
sigma = {k: float(np.linalg.norm(G, 2)) for k, G in gradient.items()}
kinds = list(dict.fromkeys(k.rsplit(".", 1)[-1] for k in sigma))
figure, panel = plt.subplots(figsize=(9, 3.6), layout="constrained")
for kind, mark in zip(kinds, "os^Dv<>", strict=False):
    of_kind = {int(k.split(".")[1]): s * x for k, x in sigma.items() if k.endswith(f".{kind}")}  # by the layer's number
    panel.semilogy(list(of_kind), list(of_kind.values()), mark, label=kind, alpha=0.8)
panel.set(xlabel="depth", ylabel=r"$s\,\sigma_1(G_l)$", title=r"$\lambda_{max}$ of the drift of every matrix")
figure.legend(loc="outside right upper")
plt.show()

# %% [markdown]
# ## Layer by layer
#
# The bracket of X16: $s\sigma_1(G) \le \lambda_{max}[H_{LoRA}] \le s\sigma_1(G) + \lambda_{max}[H_{Signal}]$, for a block of one
# layer as for all (exactly where $H_{Signal}$ has no negative eigenvalue). The signal costs a search; it scales as α², the drift as α, so the
# two are equal at $\alpha_c = r\,\sigma_1(G)/\lambda_{max}[H_{Signal}]_{s=1}$.

# %%
ordered = sorted(sigma, key=lambda k: sigma[k])
chosen = [ordered[k] for k in np.linspace(len(ordered) // 2, len(ordered) - 1, layers).round().astype(int)]
for k in chosen:
    block = sd.decompose_layer(loss, base, adapters, s, k).signal
    drift, signal = s * sigma[k], float(sd.extreme_eigenvalues(block, tolerance=tolerance).values[0])
    print(
        f"{k}: {drift:.3g} ≤ λmax[H_LoRA] ≤ {drift + signal:.3g}: at most {signal / (drift + signal):.1%} is curvature"
    )
    print(f"    its α_c = {rank * sigma[k] / (signal / s**2):.3g}; here α = {alpha:g}")

# %% [markdown]
# ## The whole model
#
# All adapted matrices at once, with the blocks between layers.

# %%
parts = sd.decompose(loss, base, adapters, s)
signal = sd.extreme_eigenvalues(parts.signal, tolerance=tolerance)
largest = max(sigma.values())
critical = rank * largest / (float(signal.values[0]) / s**2)
print(
    f"λmax[H_Signal] = {float(signal.values[0]):.3g}, found to {tolerance:.0%}: {signal.converged}; drift {s * largest:.3g}"
)
print(f"α_c of the whole: {critical:.3g}; the largest single drift is that of {max(sigma, key=lambda k: sigma[k])}")

# %%
alphas = np.geomspace(0.25, 4096, 60)
drift, curvature = alphas / rank * largest, (alphas / rank) ** 2 * float(signal.values[0]) / s**2
figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
panel.loglog(alphas, drift, color=COLOR["drift"], ls="--", label=r"$\lambda_{max}[H_{Drift}] = s\sigma_1(G)$")
panel.loglog(alphas, curvature, color=COLOR["signal"], label=r"$\lambda_{max}[H_{Signal}]$")
panel.fill_between(
    alphas,
    np.maximum(drift, curvature),
    drift + curvature,
    color=COLOR["lora"],
    alpha=0.3,
    label=r"$\lambda_{max}[H_{LoRA}]$ is here",
)
panel.axvline(critical, color=COLOR["prediction"], ls=":", label=rf"$\alpha_c$ = {critical:.3g}")
panel.set(xlabel="α", ylabel="eigenvalue", title="the whole model at the start: gradient or curvature?")
panel.legend()
plt.show()

# %% [markdown]
# ## Which layers carry it
#
# Power iteration on $H_{Signal}$ of the whole gives its direction of largest curvature; the squares of its entries add up to 1 over
# the layers. A signal of the whole that is far above that of every layer is spread over many of them: their blocks between layers add up.

# %%
v = jax.random.normal(jax.random.key(0), (parts.signal.shape[0],), jnp.float32)
for _ in range(sweeps):
    v = parts.signal @ v
    v = v / jnp.linalg.norm(v)
direction = jax.flatten_util.ravel_pytree(dict(adapters))[1](v)
mass = {k: float(sum(jnp.sum(x**2) for x in factors)) for k, factors in direction.items()}
top = sorted(mass, key=lambda k: -mass[k])
count = int(np.searchsorted(np.cumsum([mass[k] for k in top]), 0.9)) + 1
print(f"{count} of {len(mass)} matrices hold nine tenths of it; the first is {top[0]} with {mass[top[0]]:.0%}")
figure, panel = plt.subplots(figsize=(9, 3.4), layout="constrained")
by_kind = {kind: sum(x for k, x in mass.items() if k.endswith(kind)) for kind in kinds}
panel.barh(list(by_kind), list(by_kind.values()), color=COLOR["signal"])
panel.set(xlabel="share of the direction of largest curvature", title="by kind of layer, all depths together")
plt.show()

# %% [markdown]
# ## What was learned
#
# - **Layer by layer, at LoRA's start, the largest eigenvalue is the norm of a gradient.** Whoever compares such numbers between layers,
#   or between variants of LoRA, compares gradients; at PiSSA's and OLoRA's start it is curvature (`is_it_curvature`).
# - **For the whole model it is another matter.** The blocks between layers lift the signal far above that of any one layer, and
#   $\alpha_c$ is about the α that people use.
# - **One gradient gives the lower end of the bracket, one search the upper.** Neither needs $H_{LoRA}$ itself.
# - Whether the best α follows $\alpha_c$, or the best η the sharpness, is in the ledger: X16-best-alpha, X20-best-rate.
