"""Open this package for hypotheses and findings of our own that the paper does not state."""

from experiments.claims.own import atlas, best_rate, crossover
from experiments.ledger.claim import OURS, in_order

SOURCE = OURS
ORDER = ("X16-best-alpha", "X17", "X18", "X19", "X20-best-rate")
CLAIMS = in_order(ORDER, crossover, atlas, best_rate)
