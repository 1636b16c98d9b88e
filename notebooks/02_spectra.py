# %% [markdown]
# # Spectra over α
#
# At the start of LoRA ($B = 0$) the paper says four things about the spectra of $H_\ell$, $H_{Signal}$, $H_{Drift}$ and
# their sum $H_{LoRA}$. Here each is drawn beside what is measured, and can be explored:
#
# 1. **Suppression** (F8a): $H_{Signal}$ is a compressed $H_\ell$.
# 2. **Trace law** (P3, F8b): $\mathbb{E}\,\mathrm{Tr}\,H_{Signal} = \alpha^2\,(\sigma_A^2/r)\,\mathrm{Tr}\,H_\ell$.
# 3. **Asymmetry** (F8d): the signal grows as $\alpha^2$, the drift as $\alpha$.
# 4. **Purification** (F8c): as α grows, the spectrum of $H_{LoRA}$ becomes that of $H_{Signal}$. The paper adds that this
#    makes it positive semi-definite. That part depends on $H_\ell$, and we look.
#
# It runs in a clone of the project, where `make notebooks` installs all that it needs.
#
# The size of everything below. `SIZE = "paper"` is the paper's: five 32×32 layers, matrices of 5120 rows (minutes).

# %%
import os

SIZE = os.environ.get("SIGNAL_DRIFT_SIZE", "default")
width, depth, samples, ranks, seeds, draws = {
    "quick": (6, 3, 20, (1, 2), 1, 20),
    "default": (12, 4, 60, (1, 2, 4, 8), 3, 200),
    "paper": (32, 5, 100, (1, 4, 16), 5, 200),
}[SIZE]
alphas = (1.0, 4.0, 16.0, 64.0, 256.0)

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

jax.config.update("jax_enable_x64", True)  # exact Hessians need float64
jax.config.update("jax_default_matmul_precision", "highest")

import signal_drift as sd
from experiments.analysis.intervals import exponents
from experiments.problems.mlp import MLP
from signal_drift.plotting import COLOR, STYLE, draw_sorted, shades, symlog, zero_threshold
from signal_drift.propositions import closed_forms

plt.rcParams.update({**STYLE, "figure.dpi": 70})
NAMES = {"task": r"$H_\ell$", "signal": "$H_{Signal}$", "drift": "$H_{Drift}$", "lora": "$H_{LoRA}$"}

# %% [markdown]
# ## Computed once
#
# At $B = 0$ one assembly serves every α: $H_{Signal}(\alpha) = \alpha^2 H_{Signal}(1)$ and $H_{Drift}(\alpha) = \alpha
# H_{Drift}(1)$ exactly (P4). Only their sum has to be diagonalised again.

# %%
problems = {r: MLP(width=width, depth=depth, samples=samples, rank=r) for r in ranks}
spectra, traces = {}, {}
for seed in range(seeds):
    base, loss = problems[ranks[0]].draw(seed)
    for r, problem in problems.items():
        unit = sd.decompose(loss, base, problem.adapters(seed), problem.scaling(1.0))
        if r == ranks[0]:
            H = unit.task.dense()
            task, grams = sd.eigenvalues(H), closed_forms.task_grams(H, base)
        signal, drift = (np.asarray(op.dense()) for op in (unit.signal, unit.drift))
        spectra[seed, r] = {"task": task, "signal": sd.eigenvalues(signal), "drift": sd.eigenvalues(drift)}
        spectra[seed, r] |= {alpha: sd.eigenvalues(alpha**2 * signal + alpha * drift) for alpha in alphas}
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1000 + r), draws)
        starts = jax.vmap(lambda key, r=r: sd.init_adapters(key, base, r))(keys)
        s = problem.scaling(1.0)
        traces[seed, r] = np.asarray(jax.vmap(lambda start, s=s: closed_forms.signal_trace(grams, start, s))(starts))
print(f"{len(spectra)} decompositions: H_ℓ of {len(task)} rows, H_LoRA of {[2 * depth * width * r for r in ranks]}")


def at(seed, r, alpha):
    """The four spectra at one α."""
    unit = spectra[seed, r]
    return {
        "task": unit["task"],
        "signal": alpha**2 * unit["signal"],
        "drift": alpha * unit["drift"],
        "lora": unit[alpha],
    }


# %% [markdown]
# ## Explore
#
# Each spectrum from its largest to its smallest eigenvalue; the vertical axis is logarithmic on both sides of zero. Move α:
# each factor 4 lifts the signal (blue) by 16 and the drift (orange) by 4, and $H_{LoRA}$ (green) changes from the one to the
# other. Flat at zero is what a matrix does not see at all: half of the signal is zero because $A$ does not move $W$ while
# $B = 0$. Without a live kernel you see one setting of the sliders.


# %%
def picture(alpha, r, seed):
    """The four spectra, sorted, at one setting of the sliders."""
    found = at(seed, r, alpha)
    panel = plt.subplots(figsize=(8.4, 4.6), layout="constrained")[1]
    for name, spectrum in found.items():
        draw_sorted(panel, spectrum, color=COLOR[name], label=NAMES[name], lw=3.2 if name == "lora" else 1.6, alpha=0.8)
    symlog(panel, "y", zero_threshold(found["lora"]), 3)
    panel.set(
        xlabel="position, share of all eigenvalues",
        ylabel="eigenvalue λ",
        title=f"α = {alpha:g}, r = {r}, seed {seed}, d = {width}",
    )
    panel.legend()
    plt.show()


picture(alphas[2], ranks[-1], 0)

# %%
import ipywidgets

sliders = {
    "alpha": ipywidgets.SelectionSlider(options=alphas, value=alphas[2], description="α"),
    "r": ipywidgets.SelectionSlider(options=ranks, value=ranks[-1], description="r"),
    "seed": ipywidgets.IntSlider(0, 0, seeds - 1, description="seed"),
}
ipywidgets.interactive(picture, **sliders)

# %% [markdown]
# ## 1. Suppression
#
# On average over draws of $A$ the trace shrinks by the factor $\alpha^2\sigma_A^2/r$ (P3). One draw may lie well off that, the
# further the smaller the rank. For the largest eigenvalue only the order of magnitude is stated. Measured over predicted,
# where 1 is expected of the trace:

# %%
for r in ranks:
    factor = closed_forms.suppression(r, problems[r].scaling(1.0), width**-0.5)
    ratio = {
        f.__name__: [f(spectra[i, r]["signal"]) / (factor * f(spectra[i, r]["task"])) for i in range(seeds)]
        for f in (np.sum, np.max)
    }
    print(
        f"r = {r}: factor {factor:.4g}; trace over predicted {', '.join(f'{x:.2f}' for x in ratio['sum'])} ({seeds} draws); λmax over predicted {', '.join(f'{x:.2f}' for x in ratio['max'])}"
    )

# %% [markdown]
# ## 2. The trace law
#
# The trace of $H_{Signal}$ needs no $p\times p$ matrix: given $A$ it is $s^2\sum_l \mathrm{Tr}\,A_l M_l A_l^\top$, with $M_l$
# read off $H_\ell$ (X2). So hundreds of draws are cheap. The law is about their mean; the cloud around it is X2's variance.

# %%
figure, panel = plt.subplots(figsize=(7, 4.2), layout="constrained")
jitter = np.exp(np.linspace(-0.12, 0.12, draws))
for r in ranks:
    panel.plot(
        r * jitter,
        traces[0, r],
        ".",
        ms=3,
        color=COLOR["signal"],
        alpha=0.4,
        label="one draw of A" if r == ranks[0] else None,
    )
panel.plot(
    ranks, [traces[0, r].mean() for r in ranks], "o", mfc="white", color=COLOR["signal"], label=f"mean of {draws}"
)
law = [closed_forms.suppression(r, problems[r].scaling(1.0), width**-0.5) * spectra[0, r]["task"].sum() for r in ranks]
panel.plot(ranks, law, "--", color=COLOR["prediction"], label=r"$\alpha^2(\sigma_A^2/r)\,\mathrm{Tr}\,H_\ell$")
panel.set_xscale("log", base=2)
panel.set_yscale("log")
panel.set(xlabel="rank r", ylabel=r"$\mathrm{Tr}\,H_{Signal}$ at α = 1, seed 0")
panel.legend()
for r, predicted in zip(ranks, law, strict=True):
    z = (traces[0, r].mean() - predicted) / (traces[0, r].std(ddof=1) / np.sqrt(draws))
    print(f"r = {r}: mean / law = {traces[0, r].mean() / predicted:.3f}, {z:+.1f} standard errors")
plt.show()

# %% [markdown]
# ## 3. Asymmetry
#
# $\lambda_{max}[H_{Signal}] = \Theta(\alpha^2)$ and $\lambda_{min}[H_{Drift}] = -\Theta(\alpha)$. At fixed weights and
# $B = 0$ the two powers are exact, by algebra; what they do to the sum is the point. Where blue and orange cross, the signal
# takes over. On a logarithmic axis α² is twice the slope of α.

# %%
r = ranks[-1]
figure, panels = plt.subplots(1, 2, figsize=(11.5, 4.4), layout="constrained")
for panel, end, sign in ((panels[0], np.max, 1), (panels[1], np.min, -1)):
    for name, mark, size in zip(NAMES, ("-.", "o--", "s--", "-"), (1, 9, 6, 1), strict=True):
        values = np.array([[sign * end(at(i, r, alpha)[name]) for alpha in alphas] for i in range(seeds)])
        panel.loglog(alphas, values.mean(0), mark, color=COLOR[name], ms=size, mfc="none", label=NAMES[name])
    panel.set(xlabel="α", title=r"largest: $\lambda_{max}$" if sign == 1 else r"most negative: $-\lambda_{min}$")
    panel.set_xscale("log", base=4)
panels[0].legend()
for name, end in (("signal", np.max), ("drift", np.min), ("lora", np.max), ("lora", np.min)):
    values = np.array([[abs(end(at(i, r, alpha)[name])) for alpha in alphas] for i in range(seeds)])
    slopes = exponents(np.array(alphas), values)
    print(
        f"exponent of α in {end.__name__} λ[{name}]: {slopes.mean():.3f} (from {slopes.min():.3f} to {slopes.max():.3f} over seeds)"
    )
plt.show()

# %% [markdown]
# ## 4. Purification
#
# Left: the sorted spectrum of $H_{LoRA}/\alpha^2$ moves onto that of $H_{Signal}(1)$ as α grows. Right: how far it still is,
# over $\lambda_{max}[H_{Signal}]$; by Weyl's inequality never further than $\|H_{Drift}\|$, which over that falls as $1/\alpha$.
# This is a *relative* distance. The absolute one is printed, and grows.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.4), layout="constrained")
for alpha, color in zip(alphas, shades(len(alphas)), strict=True):
    draw_sorted(left, spectra[0, r][alpha] / alpha**2, color=color, label=f"α = {alpha:g}")
draw_sorted(left, spectra[0, r]["signal"], color=COLOR["signal"], ls="--", label="$H_{Signal}(1)$")
symlog(left, "y", zero_threshold(spectra[0, r]["signal"]), 3)
left.set(xlabel="position, share of all eigenvalues", ylabel=r"$\lambda[H_{LoRA}]/\alpha^2$")
left.legend(fontsize=9)
for i in range(seeds):
    unit = spectra[i, r]
    distance = [
        abs(unit[alpha] - alpha**2 * unit["signal"]).max() / (alpha**2 * unit["signal"].max()) for alpha in alphas
    ]
    right.loglog(alphas, distance, "-o", color=COLOR["lora"], alpha=0.7, label="measured, one seed" if i == 0 else None)
    bound = [unit["drift"].max() / (alpha * unit["signal"].max()) for alpha in alphas]
    right.loglog(alphas, bound, "--", color=COLOR["prediction"], label="Weyl's bound" if i == 0 else None)
right.set_xscale("log", base=4)
right.set(xlabel="α", ylabel=r"largest distance of eigenvalues / $\lambda_{max}[H_{Signal}]$")
right.legend()
for alpha in alphas:
    absolute = [abs(spectra[i, r][alpha] - alpha**2 * spectra[i, r]["signal"]).max() for i in range(seeds)]
    print(f"α = {alpha:g}: largest distance, not divided by anything, {np.mean(absolute):.3g} (mean of {seeds} seeds)")
plt.show()

# %% [markdown]
# Does that make $H_{LoRA}$ positive semi-definite? In the limit as far as $H_{Signal}$ is, and that is certain only if $H_\ell$
# is. The ratio $\lambda_{min}/\lambda_{max}$ would be zero (or above) for a positive semi-definite matrix.

# %%
ratio = {
    "H_ℓ": [x["task"].min() / x["task"].max() for (_, k), x in spectra.items() if k == r],
    "H_Signal, every α": [x["signal"].min() / x["signal"].max() for (_, k), x in spectra.items() if k == r],
    **{f"H_LoRA, α = {a:g}": [x[a].min() / x[a].max() for (_, k), x in spectra.items() if k == r] for a in alphas},
}
for name, values in ratio.items():
    print(
        f"λmin/λmax of {name:18} {np.mean(values):+.3f}   (from {min(values):+.3f} to {max(values):+.3f} over {seeds} seeds)"
    )
holds = all(value >= 0 for value in ratio["H_ℓ"])
print(
    "\nAt this size H_ℓ is",
    "positive semi-definite."
    if holds
    else "not positive semi-definite: the purified spectrum is H_Signal's, negative part included.",
)

# %% [markdown]
# Purification is real, relative to the largest eigenvalue: the drift's share vanishes as $1/\alpha$. Positive
# semi-definiteness is a further assumption (P2-premise), about the task and not about LoRA. And at $B = 0$ no α removes the
# negative eigenvalues, since $H_{LoRA}$ has there at least $r\sum_l \mathrm{rank}\,G_l$ of each sign (X13, seen in
# [01_signal_and_drift](01_signal_and_drift.ipynb)); they only become small beside $\lambda_{max}$. The verdicts at the paper's size, with intervals, are in the ledger; see
# [04_your_own_model](04_your_own_model.ipynb) for how to read it, and [03_dynamics_and_protocol](03_dynamics_and_protocol.ipynb)
# for what the two spectra do to training.
