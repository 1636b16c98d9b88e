# %% [markdown]
# # Signal and drift
#
# LoRA trains $A$ and $B$ in $W = W_0 + s\,BA$. Seen from $\theta = (A, B)$ the loss has another Hessian than seen from
# $W$, and it splits exactly in two:
#
# $$H_{LoRA} = \underbrace{J^\top H_\ell\, J}_{H_{Signal}} + \underbrace{\textstyle\sum_k g_k \nabla^2_\theta w_k}_{H_{Drift}},
# \qquad J = \frac{\partial w}{\partial \theta}.$$
#
# The **signal** is the curvature $H_\ell$ of the task, seen through $J$. The **drift** exists only because $BA$ is a
# product: it would be zero if $W$ were linear in $\theta$. This notebook takes the split by hand on one 2×2 layer, then
# on a whole network. It runs in a clone of the project, where `make notebooks` installs all that it needs.
#
# Everything below is computed at the size chosen here. Write `SIZE = "paper"` for the five 32×32 layers of the paper.

# %%
import os

SIZE = os.environ.get("SIGNAL_DRIFT_SIZE", "default")
width, depth, rank, samples = {"quick": (4, 2, 2, 10), "default": (6, 3, 3, 40), "paper": (32, 5, 16, 100)}[SIZE]

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

jax.config.update("jax_enable_x64", True)  # exact Hessians need float64
jax.config.update("jax_default_matmul_precision", "highest")

import signal_drift as sd
from experiments.problems.mlp import MLP
from signal_drift.plotting import COLOR, STYLE

plt.rcParams.update({**STYLE, "figure.dpi": 70, "axes.grid": False})
np.set_printoptions(precision=3, suppress=True, linewidth=110)

# %% [markdown]
# ## One layer, by hand
#
# Take one 2×2 layer, rank 1, $s = \tfrac12$, and a loss that only asks for a target: $\ell(W) = \tfrac12\|W - T\|_F^2$.
# Its gradient is $G = W - T$ and its Hessian $H_\ell$ is the identity, so all that happens below is LoRA's doing.

# %%
base = {"W": jnp.eye(2)}
theta = {"W": sd.Adapter(A=jnp.array([[3.0, 1.0]]), B=jnp.array([[1.0], [2.0]]))}
target, s = jnp.array([[0.0, 1.0], [1.0, 0.0]]), 0.5


def loss(weights):
    return 0.5 * jnp.sum((weights["W"] - target) ** 2)


parts = sd.decompose(loss, base, theta, s)
A, B = theta["W"]
W = sd.effective_weights(base, theta, s)["W"]
G = W - target
print(f"W = W0 + s·BA =\n{W}\nG = W − T =\n{G}")

# %% [markdown]
# $\theta = (A_1, A_2, B_1, B_2)$ and $w = (W_{11}, W_{12}, W_{21}, W_{22})$. By the product rule
#
# $$\frac{\partial W_{ij}}{\partial A_k} = s\,B_i\,\delta_{jk}, \qquad \frac{\partial W_{ij}}{\partial B_k} = s\,A_j\,\delta_{ik},
# \qquad \frac{\partial^2 W_{ij}}{\partial B_i\,\partial A_j} = s .$$
#
# The first two give $J$. The third is the whole of the drift: $s\,G_{ij}$ between $B_i$ and $A_j$, and zero elsewhere.

# %%
a, b = A.ravel(), B.ravel()
J = s * np.array([[b[0], 0, a[0], 0], [0, b[0], a[1], 0], [b[1], 0, 0, a[0]], [0, b[1], 0, a[1]]])
drift = s * np.block([[np.zeros((2, 2)), G.T], [G, np.zeros((2, 2))]])
by_hand = {"jacobian": J, "task": np.eye(4), "signal": J.T @ J, "drift": drift, "lora": J.T @ J + drift}

for name, expected in by_hand.items():
    computed = np.asarray(getattr(parts, name).dense())
    print(f"{name}: largest difference from the calculation by hand {abs(computed - expected).max():.1e}\n{computed}\n")

# %% [markdown]
# Two things to see. The signal is here $J^\top J$ and cannot have a negative eigenvalue. The drift couples $A$ to $B$ and
# neither to itself, so whatever it does to $(v_A, v_B)$ it does with the opposite sign to $(v_A, -v_B)$: if $\lambda$ is an
# eigenvalue, so is $-\lambda$. The pairs are $\pm s\,\sigma_i(G)$, one for each singular value of the gradient.

# %%
for name in ("signal", "drift", "lora"):
    print(f"eigenvalues of H_{name}: {sd.eigenvalues(getattr(parts, name))}")
print(f"± s·σ(G):               {np.sort(np.outer([-s, s], np.linalg.svd(G)[1]).ravel())}")

# %% [markdown]
# ## Is there negative curvature wherever there is a gradient?
#
# $H_{LoRA}$ above has a negative eigenvalue, brought by the drift. It is tempting to conclude that this must be so wherever
# $G \ne 0$, since the drift then has negative eigenvalues. It must not: the signal may outweigh them. The smallest case shows
# both, $w = ab$ with $\ell = \tfrac12(ab - t)^2$ and $t = 1.5$:
#
# $$H_{LoRA} = \begin{pmatrix} b^2 & ab \\ ab & a^2 \end{pmatrix} + (ab - t)\begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix}.$$


# %%
def loss_of_a_number(weights):
    return 0.5 * jnp.sum((weights["w"] - 1.5) ** 2)


def ends_at(b):
    """λmin and λmax of H_LoRA at a = 1 and this b."""
    one = {"w": sd.Adapter(A=jnp.ones((1, 1)), B=jnp.full((1, 1), b))}
    return sd.eigenvalues(sd.decompose(loss_of_a_number, {"w": jnp.zeros((1, 1))}, one, 1.0).lora)


b_values = np.linspace(0, 2, 41)
lowest = np.array([ends_at(b)[0] for b in b_values])
figure, panel = plt.subplots(figsize=(7.4, 4.0), layout="constrained")
panel.plot(b_values, lowest, color=COLOR["lora"], label=r"$\lambda_{min}[H_{LoRA}]$")
panel.plot(b_values, -abs(b_values - 1.5), "--", color=COLOR["drift"], label=r"$\lambda_{min}[H_{Drift}] = -|g|$")
panel.axhline(0, color="0.6", lw=0.8)
panel.plot([0, 1], [ends_at(0.0)[0], ends_at(1.0)[0]], "o", color=COLOR["lora"], ms=8)
panel.annotate(
    "start of LoRA, b = 0:\nalways negative",
    (0, ends_at(0.0)[0]),
    (0.72, -1.35),
    arrowprops={"arrowstyle": "-", "color": "0.6"},
)
panel.annotate("b = 1: a gradient, and\nno negative curvature", (1, ends_at(1.0)[0]), (1.06, 0.56))
panel.set(xlabel="b, at a = 1 and target 1.5", ylabel="eigenvalue λ", ylim=(-1.6, 0.95))
figure.legend(loc="outside right upper")
print(f"b = 1: gradient g = {1 - 1.5}, eigenvalues of H_LoRA {ends_at(1.0)}")
print(f"b = 0: gradient g = {0 - 1.5}, eigenvalues of H_LoRA {ends_at(0.0)}")
plt.show()

# %% [markdown]
# What is true: **at $B = 0$**, where LoRA starts, the signal is zero between directions of $A$. There the determinant above is
# $-g^2$, and in general $H_{LoRA}$ has at least $r\sum_l \mathrm{rank}\,G_l$ eigenvalues of *each* sign, for every loss and
# every α (X13). Every start of LoRA with a gradient is a saddle; away from it the two parts compete.

# %% [markdown]
# ## A whole network
#
# The MLP of the paper's appendix E (linear layers with SiLU between them, a linear teacher whose singular values fall as
# $1/i$), with an adapter on every layer. $B$ is drawn at random, to stand for a moment after some training: at the start of
# LoRA it is zero, and half of what follows would be empty.

# %%
problem = MLP(width=width, depth=depth, samples=samples, rank=rank)
base, loss = problem.draw(seed=0)
start = problem.adapters(seed=0)
keys = dict(zip(base, jax.random.split(jax.random.key(1), depth), strict=True))
theta = {k: sd.Adapter(A, 0.3 * jax.random.normal(keys[k], B.shape)) for k, (A, B) in start.items()}
s = problem.scaling(alpha=rank)  # s = α/r
parts = sd.decompose(loss, base, theta, s)
print(f"{depth} layers of {width}×{width}: {parts.task.shape[0]} weights, {parts.lora.shape[0]} parameters of LoRA")

# %% [markdown]
# $W_0$ of one layer and $J$. Each layer has its own block of $J$; within it, the left half (from $A$) repeats $B$, the
# right half (from $B$) repeats $A$.


# %%
def show(panel, M, title):
    """A matrix as a picture; colours saturate at its 99th percentile, white is zero."""
    scale = np.quantile(abs(M[M != 0]), 0.99)
    panel.imshow(M, cmap="PuOr", vmin=-scale, vmax=scale, interpolation="nearest", aspect="equal")
    panel.set(title=f"{title}\n{M.shape[0]}×{M.shape[1]}, ±{scale:.2g}", xticks=[], yticks=[])


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
show(left, np.asarray(base[min(base)]), "$W_0$ of the first layer")
show(right, np.asarray(parts.jacobian.dense()), r"$J = \partial w/\partial\theta$")
plt.show()

# %% [markdown]
# The four matrices. $H_\ell$ couples all layers. So does the signal, with a finer pattern, since each entry of $\theta$
# moves many weights. The drift has no block between different layers: the second derivative of $BA$ knows one layer only.

# %%
figure, axes = plt.subplots(1, 4, figsize=(15, 4.4), layout="constrained")
titles = {"task": r"$H_\ell$", "signal": "$H_{Signal}$", "drift": "$H_{Drift}$", "lora": "$H_{LoRA}$"}
dense = {name: np.asarray(getattr(parts, name).dense()) for name in titles}
for panel, (name, title) in zip(axes, titles.items(), strict=True):
    show(panel, dense[name], title)
error = np.linalg.norm(dense["lora"] - dense["signal"] - dense["drift"]) / np.linalg.norm(dense["lora"])
print(f"‖H_LoRA − H_Signal − H_Drift‖ / ‖H_LoRA‖ = {error:.1e}")
plt.show()

# %% [markdown]
# ## An update splits as well
#
# A step $\Delta\theta = (\Delta A, \Delta B)$ moves the weights by
#
# $$\Delta W = \underbrace{s\,(B\,\Delta A + \Delta B\,A)}_{\Delta W_{Signal}} + \underbrace{s\,\Delta B\,\Delta A}_{\Delta W_{Drift}} .$$
#
# The signal is linear in the step and the drift quadratic: along a fixed direction a step of size $\eta$ has a signal
# $\propto \eta$ and a drift $\propto \eta^2$. So a larger $\eta$ raises the drift's share of the update. A larger
# $s = \alpha/r$ multiplies both parts of the same step alike and leaves the share as it is.

# %%
gradient = jax.grad(lambda t: loss(sd.effective_weights(base, t, s)))(theta)
rates = np.geomspace(1e-3, 1e2, 11)
norms = {"signal": [], "drift": []}
for eta in rates:
    split = sd.decompose_update(theta, jax.tree.map(lambda g, eta=eta: -eta * g, gradient), s)
    for name, values in norms.items():
        values.append(np.sqrt(sum(float(jnp.sum(x**2)) for x in getattr(split, name).values())))

figure, panel = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for (name, values), power, mark in zip(norms.items(), (1, 2), "os", strict=True):
    panel.loglog(rates, values, mark, color=COLOR[name], label=rf"$\|\Delta W_{{{name.capitalize()}}}\|_F$, measured")
    law = values[0] * (rates / rates[0]) ** power
    panel.loglog(rates, law, "--", color=COLOR["prediction"], label="predicted: slopes 1 and 2" if power == 1 else None)
panel.set(xlabel="step size η along the gradient", ylabel="size of the part of the update")
panel.legend()
plt.show()

# %% [markdown]
# ## The pairs of the drift
#
# What held for the 2×2 layer holds for every layer: the eigenvalues of $H_{Drift}$ are $\pm s\,\sigma_i(G_l)$, for each
# singular value of each layer's gradient, **each of them $r$ times** (X1), and zeros if a layer is not square. The spectrum of
# the drift needs no Hessian at all.

# %%
spectrum = sd.eigenvalues(parts.drift)
gradients = jax.grad(loss)(sd.effective_weights(base, theta, s))
sigma = np.concatenate([np.linalg.svd(G, compute_uv=False) for G in gradients.values()])
predicted = np.sort(s * np.repeat(np.concatenate([-sigma, sigma]), rank))

figure, panel = plt.subplots(figsize=(7.4, 4.2), layout="constrained")
panel.plot(spectrum, ".", color=COLOR["drift"], ms=7, label="eigenvalues of $H_{Drift}$")
panel.step(
    np.arange(len(predicted)),
    predicted,
    where="mid",
    color=COLOR["prediction"],
    label=rf"$\pm s\,\sigma_i(G)$, each {rank} times",
)
panel.axhline(0, color="0.6", lw=0.8)
panel.set(xlabel="index", ylabel="eigenvalue λ")
panel.legend()
print(f"largest difference over the largest eigenvalue: {abs(spectrum - predicted).max() / spectrum[-1]:.1e}")
plt.show()

# %% [markdown]
# And the saddle at the start, on this network: with $B = 0$ at least $r\sum_l \mathrm{rank}\,G_l$ eigenvalues of $H_{LoRA}$
# have each sign. After some training there may be fewer negative ones.

# %%
for name, at in (("B = 0", start), ("B drawn", theta)):
    spectrum = sd.eigenvalues(sd.decompose(loss, base, at, s).lora)
    zero = len(spectrum) * np.finfo(float).eps * abs(spectrum).max()
    rank_of = [np.linalg.matrix_rank(G) for G in jax.grad(loss)(sd.effective_weights(base, at, s)).values()]
    counts = (
        f"{np.sum(spectrum < -zero)} negative and {np.sum(spectrum > zero)} positive of {len(spectrum)} eigenvalues"
    )
    print(f"{name:8} {counts}; r·Σ rank G = {rank * sum(rank_of)}")

# %% [markdown]
# Next: [02_spectra](02_spectra.ipynb), how these spectra change with $\alpha$ and $r$.
