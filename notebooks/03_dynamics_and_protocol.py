# %% [markdown]
# # Dynamics, and which α to use
#
# A learning rate η and a factor α both make LoRA move faster. They are not the same knob: α multiplies the signal of an
# update and its drift alike, η the drift once more. Six questions: what each does along a trajectory, whether the drift is
# what troubles a large η, where training becomes unstable, what α can be exchanged for, how the best α depends on the rank and on η, and what that means for your
# layers. It runs in a clone of the project, where `make notebooks` installs all that it needs.
#
# The size of everything below. `SIZE = "paper"` is the paper's trajectory: five 256×256 layers, 100 steps.

# %%
import os

SIZE = os.environ.get("SIGNAL_DRIFT_SIZE", "default")
width, steps, ranks, seeds, shares = {
    "quick": (8, 10, (1, 4), 1, (1, 1 / 4)),
    "default": (32, 100, (1, 4, 16), 3, (1, 1 / 4, 1 / 16, 1 / 64)),
    "paper": (256, 100, (1, 2, 4, 8, 16, 32, 64), 5, (1, 1 / 4, 1 / 16, 1 / 64)),
}[SIZE]
rank = min(16, width // 2)

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")

import signal_drift as sd
from experiments.analysis.divergence import critical_rate, unstable
from experiments.analysis.sweeps import best_point, free_fit, half_octaves, root_fit
from experiments.ledger import table
from experiments.problems.mlp import MLP
from signal_drift.plotting import COLOR, STYLE, shades
from signal_drift.propositions.updates import VANISHING_EPSILON

plt.rcParams.update({**STYLE, "figure.dpi": 70})
problem = MLP(width=width, samples=100, rank=rank)
base, loss = problem.draw(seed=0)
start = problem.adapters(seed=0)

# %% [markdown]
# ## η against α along a trajectory
#
# Adam from $(\alpha_0, \eta_0) = (1, 10^{-4})$; then η, or α, sixteen and sixty-four times larger. Under Adam a step has
# the size of η whatever the gradient, so P4 says: signal $\propto \alpha\eta$, drift $\propto \alpha\eta^2$, and their
# ratio $\propto 1/\eta$ whatever α. `sd.train` records both parts of every update.
#
# That "whatever the gradient" needs an ε far below the gradients: Adam divides by $\sqrt v + \epsilon$. After one step from
# $B = 0$ with these small rates the gradient of $A$ is about as small as the usual $\epsilon = 10^{-8}$, and grows with α and η. So
# here, and in all that follows, $\epsilon \to 0$, the limit that the theory is about. What the usual ε changes is shown below.

# %%
eta_0 = 1e-4
runs = {
    "η₀, α₀": (1.0, eta_0),
    "16 η₀": (1.0, 16 * eta_0),
    "64 η₀": (1.0, 64 * eta_0),
    "16 α₀": (16.0, eta_0),
    "64 α₀": (64.0, eta_0),
}


@jax.jit
def train(s, eta, eps=VANISHING_EPSILON):
    """Adam at one scaling and rate."""
    return sd.train(loss, base, start, s, optax.adam(eta, eps=eps), steps)


found = {name: train(problem.scaling(alpha), eta) for name, (alpha, eta) in runs.items()}
later = np.arange(2, steps + 1)

hues = dict(zip(runs, ("task", "band", "drift", "other", "signal"), strict=True))
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
for name, run in found.items():
    style = {"color": COLOR[hues[name]], "ls": "-" if "α" in name else "--", "label": name}
    left.plot(run.loss, **style)
    right.semilogy(later, (run.signal_norm / run.drift_norm)[1:], **style)
right.semilogy(later, 2 * (later - 1), ":", color=COLOR["prediction"], label="2(t − 1), X14")
left.set(xlabel="step", title="loss (lower is better)")
right.set(xlabel="step t", title=r"$\|\Delta W_{Signal}\|\,/\,\|\Delta W_{Drift}\|$")
figure.legend(*right.get_legend_handles_labels(), loc="outside right upper")
plt.show()

# %% [markdown]
# The first step from $B = 0$ has no drift at all (X3), so the right panel begins with the second. P4's ratio is a statement
# about this step, and holds there to a percent or so. The last column is the same with Adam's usual $\epsilon$, where it looks as
# if α mattered.

# %%
usual = {name: train(problem.scaling(alpha), eta, 1e-8) for name, (alpha, eta) in runs.items()}


def purity(run, step):
    """Signal over drift at a step, counted from 1."""
    return run.signal_norm[step - 1] / run.drift_norm[step - 1]


print("signal/drift, over that of the run at η₀ and α₀:\n")
print(f"{'':8}{'predicted η₀/η':>16}{'at step 2':>12}{'at the last':>14}{'at step 2, ε = 1e-8':>22}")
for name in runs:
    at_2, at_end = (purity(found[name], t) / purity(found["η₀, α₀"], t) for t in (2, steps))
    with_usual = purity(usual[name], 2) / purity(usual["η₀, α₀"], 2)
    print(f"{name:8}{eta_0 / runs[name][1]:16.4f}{at_2:12.4f}{at_end:14.4f}{with_usual:22.4f}")

# %% [markdown]
# At the last step it no longer holds: the ratio of $64\,\eta_0$ has risen to within a factor of a few of the others. If the
# gradient keeps its direction, $B$ grows with every step and the ratio tends to $2(t-1)$ whatever η, once t exceeds about
# $\sigma_A/3\eta$ (X14): here after ten steps at $64\,\eta_0$, and not within 500 at $\eta_0$.

# %% [markdown]
# ## Is the drift the culprit?
#
# The paper explains the trouble of a large η by the drift. `sd.train` can take it away: with `drift=0` $W_0$ takes up
# $-s\,\Delta B\,\Delta A$ at every step, so that w moves by the signal alone and the optimizer moves θ as it would. If the drift were
# to blame, the second panel would be calm. The third has no drift either, as A is frozen (LoRA-FA).

# %%
ways = {
    "drift as it is": (optax.adam, 1.0),
    "drift removed": (optax.adam, 0.0),
    "A frozen": (lambda eta: sd.frozen_A(optax.adam(eta)), 1.0),
}
figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", sharey=True)
print(f"{'':16}{'η/η₀':>8}{'final / initial loss':>22}{'steps on which the drift descends':>36}")
for panel, (name, (optimizer, c)) in zip(panels, ways.items(), strict=True):
    knocked = jax.jit(lambda eta: sd.train(loss, base, start, problem.scaling(1.0), optimizer(eta), steps, drift=c))
    for m, color in zip((128, 512, 2048), shades(3), strict=True):
        run = knocked(m * eta_0)
        panel.semilogy(run.loss / run.loss[0], color=color, label=f"{m}·η₀")
        descends = f"{jnp.mean(run.drift_alignment[1:] > 0):.0%}" if run.drift_norm.any() else "no drift"
        print(f"{name:16}{m:8}{run.loss[-1] / run.loss[0]:22.3g}{descends:>36}")
    panel.set(xlabel="step", title=name)
panels[0].set_ylabel("loss / initial loss")
figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# The first two panels are alike: what oscillates does so without drift, and while the loss falls the drift points downhill.
# What calms is freezing A, for which the price is a slower descent. `python -m experiments drift_knockout` asks it with 40 paired
# seeds at the paper's size (C1 to C4), and `spectra_along_training` finds both kinds of runs at Adam's edge of stability.

# %% [markdown]
# ## The edge of stability
#
# L1: gradient descent on a quadratic is stable iff $\eta \le 2/\lambda_{max}(H)$. The LoRA loss is no quadratic: at $B = 0$ its
# Hessian is indefinite, and it moves. Does the lemma still tell where training becomes unstable? For each α the largest η
# at which gradient descent keeps the loss below its start is found by bisection, and held against
# $2/\lambda_{max}[H_{LoRA}]$ at the start.

# %%
factors = (1.0, 4.0, 16.0, 64.0, 256.0)
measured, predicted, grown = (np.full((seeds, len(factors)), np.nan) for _ in range(3))
for seed in range(seeds):
    weights, task = problem.draw(seed)
    first = problem.adapters(seed)
    descend = jax.jit(lambda s, eta: sd.train(task, weights, first, s, optax.sgd(eta), steps))
    for i, alpha in enumerate(factors):
        s = problem.scaling(alpha)
        top = sd.extreme_eigenvalues(sd.decompose(task, weights, first, s).lora, tolerance=1e-6).values[-1]
        edge = predicted[seed, i] = 2 / top
        measured[seed, i] = critical_rate(
            lambda eta: unstable("exceeds", np.asarray(descend(s, eta).loss)), edge / 64, 64 * edge, halvings=10
        )
        halfway = descend(s, measured[seed, i] / 2)
        if np.isfinite(halfway.loss[-1]):
            end = sd.decompose(task, weights, halfway.trained, s).lora
            grown[seed, i] = sd.extreme_eigenvalues(end, tolerance=1e-4).values[-1] / top

# %%
figure, panel = plt.subplots(figsize=(7.6, 4.4), layout="constrained")
panel.axhline(1, color=COLOR["prediction"], ls="--", label="L1, if it held here")
panel.semilogx(factors, measured.T / predicted.T, ".", color=COLOR["lora"], alpha=0.5, base=4)
panel.semilogx(
    factors, np.median(measured / predicted, axis=0), "o-", color=COLOR["lora"], label="measured, median", base=4
)
panel.set_yscale("log", base=2)
panel.set(xlabel="α", ylabel=r"largest stable η over $2/\lambda_{max}[H_{LoRA}]$ at the start")
panel.set_title("above 1: more stable than the lemma says")
figure.legend(loc="outside right upper")
plt.show()
for alpha, edge, ratio, growth in zip(factors, predicted.T, (measured / predicted).T, grown.T, strict=True):
    print(
        f"α = {alpha:3g}: 2/λmax = {np.median(edge):8.3g}, largest stable η = {np.median(ratio):5.2f} times that;",
        f"trained at half of it λmax ends at {np.nanmedian(growth):5.2f} times its start",
    )

# %% [markdown]
# The lemma holds for what it is stated for (L1-stability in the ledger). Here it is off by factors, in both directions. At
# small α the start is a saddle that the drift makes: as $B$ grows the signal's curvature $J^\top H_\ell J$ appears, λmax grows
# (last column), and a rate that was safe at the start is not safe later. At large α the signal is there from the start, and
# descent survives above the edge: it only has to come back from its first steps, not to be stable at the starting point.

# %% [markdown]
# ## What α can be exchanged for
#
# X4: with $A' = pA$, $\eta_A' = p\,\eta_A$, $\eta_B' = q\,\eta_B$ and $\alpha' = \alpha/(pq)$ Adam (ε → 0) follows the same
# trajectory of $W$. At $B = 0$ this says: **multiplying α by $c$ is multiplying the learning rate of $B$ alone by $c$**.
# For $c$ a power of two every rounding is the same, and the trajectories must agree to the last bit.


# %%
@jax.jit  # one program for all: another one would round in another order
def trajectory(alpha, eta_a, eta_b):
    """w after Adam with separate rates for A and B."""
    optimizer = sd.separate_rates(optax.adam(eta_a, eps=VANISHING_EPSILON), optax.adam(eta_b, eps=VANISHING_EPSILON))
    s = problem.scaling(alpha)
    return sd.effective_weights(base, sd.train(loss, base, start, s, optimizer, steps).trained, s)


def apart(x, y):
    return max(float(jnp.abs(x[k] - y[k]).max()) for k in base)


eta, c = 1e-3, 8.0
alpha_up, eta_b_up, both_up = (
    trajectory(16.0 * c, eta, eta),
    trajectory(16.0, eta, c * eta),
    trajectory(16.0, c * eta, c * eta),
)
print(f"α × 8 against η_B × 8:       weights differ by {apart(alpha_up, eta_b_up):.1e} at most")
print(f"α × 8 against both rates × 8: weights differ by {apart(alpha_up, both_up):.1e} at most")

# %% [markdown]
# ## Does the best α grow like √r?
#
# F1c: at $\eta_{FFT}$, the best learning rate of full fine-tuning, the best α is $C\sqrt r$ with $C \gg 1$. So first find
# $\eta_{FFT}$. Then, for each rank, train at α on a grid of half octaves and take the α with the lowest final loss (a parabola
# through the best three); the median over seeds is fitted by $\log\alpha^* = \log C + m\log r$. The same at smaller η shows
# what $C$ depends on.

# %%
fft_rates = np.array([10.0 ** (k / 4) for k in range(-14, -2)])
grid = np.array(half_octaves(-2, 13))
draws = [problem.draw(seed) for seed in range(seeds)]


def full(task, weights, eta):
    return sd.train(task, weights, None, 1.0, optax.adam(eta, eps=VANISHING_EPSILON), steps).loss[-1]


def adapted(task, weights, first, eta, s):
    return sd.train(task, weights, first, s, optax.adam(eta, eps=VANISHING_EPSILON), steps).loss[-1]


over_rates = [np.log(jax.jit(jax.vmap(lambda eta: full(task, weights, eta)))(fft_rates)) for weights, task in draws]
eta_fft = best_point(fft_rates, np.mean(over_rates, axis=0)).x
rates = eta_fft * np.array(shares)

log_loss = np.empty((len(ranks), seeds, len(rates), len(grid)))
for i, r in enumerate(ranks):
    for seed, (weights, task) in enumerate(draws):
        first = MLP(width=width, samples=100, rank=r).adapters(seed)
        sweep = jax.jit(lambda eta: jax.vmap(lambda s: adapted(task, weights, first, eta, s))(grid / r))
        log_loss[i, seed] = [np.log(sweep(eta)) for eta in rates]
best = np.array([[[best_point(grid, row).x for row in by_rate] for by_rate in by_seed] for by_seed in log_loss])
found_best = np.nanmedian(best, axis=1)  # rank, rate
print(f"η_FFT = {eta_fft:.3g}; best α not inside the grid: {np.isnan(best).sum()} of {best.size}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
for r, values, color in zip(ranks, np.mean(log_loss[:, :, 0], axis=1), shades(len(ranks)), strict=True):
    left.semilogx(grid, values, color=color, label=f"r = {r}", base=2)
low, first_loss = np.nanmin(log_loss[:, :, 0].mean(1)), np.mean([np.log(task(weights)) for weights, task in draws])
left.axhline(first_loss, color="0.6", lw=1, ls=":")
left.set(
    xlabel="α",
    title="log of the final loss at $η_{FFT}$, mean over seeds (dotted: at the start)",
    ylim=(low - 0.3, first_loss + 0.5),
)
left.legend(fontsize=9)
free, root = free_fit(ranks, found_best[:, 0]), root_fit(ranks, found_best[:, 0])
right.loglog(ranks, best[:, :, 0], ".", color=COLOR["signal"], alpha=0.5)
right.loglog(ranks, found_best[:, 0], "o", color=COLOR["signal"], label="best α, median")
for law, label, style in (
    (free, f"free fit, slope {free.slope:.2f}", {"color": COLOR["signal"]}),
    (root, f"{root.prefactor:.3g}·√r", {"color": COLOR["prediction"], "ls": "--"}),
):
    right.loglog(ranks, law.prefactor * np.array(ranks) ** law.slope, label=label, **style)
right.set_xscale("log", base=2)
right.set_yscale("log", base=2)
right.set(xlabel="rank r", title="best α at $η_{FFT}$ (dots: one seed each)")
right.legend()
plt.show()

# %% [markdown]
# $C$ is a number for one learning rate. X15 says how it moves: as long as $A$ stays near its start, $W$ depends on the product
# $\alpha\eta$, so that the best α is $\propto 1/\eta$; once $A$ forgets its start, on $\alpha\eta^2$, and it is
# $\propto 1/\eta^2$. Between these two slopes $C$ should fall as η grows.

# %%
C = np.array([root_fit(ranks, row).prefactor for row in found_best.T])
figure, panel = plt.subplots(figsize=(7.6, 4.4), layout="constrained")
panel.loglog(rates, C, "o-", color=COLOR["signal"], label="measured")
span = np.array([rates.min(), rates.max()])
panel.fill_between(
    span,
    C[0] * (eta_fft / span),
    C[0] * (eta_fft / span) ** 2,
    color=COLOR["band"],
    alpha=0.3,
    label="X15: slopes −1 to −2\nfrom the value at $η_{FFT}$",
)
panel.axvline(eta_fft, color=COLOR["task"], ls=":", label="$η_{FFT}$")
panel.axhline(256, color=COLOR["prediction"], ls="--", label="V1: C = 256\n(Llama-3-1B)")
panel.set(xlabel="learning rate η", ylabel="C of the best α = C√r")
figure.legend(loc="outside right upper")
plt.show()
slope = np.polyfit(np.log(rates), np.log(C), 1)[0]
print("C at", ", ".join(f"η = {eta:.2g}: {value:.3g}" for eta, value in zip(rates, C, strict=True)))
print(f"slope of log C over log η: {slope:.2f}; of log α* over log r at η_FFT: {free.slope:.2f}, stated 0.5")

# %% [markdown]
# So a value of $C$ means nothing without its η: the same small network has any $C$ from a few to hundreds. At its own $\eta_{FFT}$
# it is a few, as for the tasks in the ledger, far from the 256 of V1. That was found on Llama-3-1B at *its* $\eta_{FFT}$, 2e-5, more than
# a thousand times smaller.

# %% [markdown]
# One small task and three seeds show how it is measured and prove nothing either way. The claims with their intervals, on
# the tasks of the ledger:

# %%
path = Path("../docs/ledger.json")
claims = {"F1c-square-root", "V1", "V2", "V-protocol"}
table.read(path).of(claims) if path.exists() else "No ledger here: clone the project, or run `make reproduce`."

# %% [markdown]
# ## What α for your layers?
#
# Four rules, for a layer with `d_in` inputs and $A$ drawn as PEFT does (uniform, $\sigma_A = 1/\sqrt{3 d_{in}}$). All in the
# convention $W = W_0 + (\alpha/r)\,BA$, so that they can be compared: rsLoRA multiplies by $\alpha/\sqrt r$, which is
# $\alpha\sqrt r$ here. V2 is the α at which the expected trace of $H_{Signal}$ is that of $H_\ell$.


# %%
def rules(d_in, r, lora_alpha=8):
    """α of each rule in the convention s = α/r."""
    return {
        "PEFT's default": lora_alpha,
        "rsLoRA": lora_alpha * r**0.5,
        "V1: 256√r": sd.empirical_alpha_base(r),
        "V2: √r/σ_A": sd.alpha_base(r, sd.kaiming_sigma(d_in)),
    }


def table(d_in, r, lora_alpha):
    """One line for each rule."""
    V2 = rules(d_in, r)["V2: √r/σ_A"]
    print(f"d_in = {d_in}, r = {r}, lora_alpha = {lora_alpha}\n{'rule':16} {'α':>10} {'s = α/r':>10} {'of V2':>8}")
    for name, alpha in rules(d_in, r, lora_alpha).items():
        print(f"{name:16} {alpha:10.4g} {alpha / r:10.4g} {alpha / V2:8.2g}")


for d_in, r in ((768, 8), (4096, 16), (4096, 64)):
    table(d_in, r, 8)
    print()

# %%
import ipywidgets

ipywidgets.interactive(
    table,
    d_in=ipywidgets.BoundedIntText(4096, min=1, max=10**6, description="d_in"),
    r=ipywidgets.BoundedIntText(16, min=1, max=10**4, description="r"),
    lora_alpha=ipywidgets.BoundedIntText(16, min=1, max=10**5, description="lora_alpha"),
)

# %% [markdown]
# Whether V1 or V2 then train better at the learning rate of full fine-tuning is the claim V-protocol, above.
# Next: [04_your_own_model](04_your_own_model.ipynb).
