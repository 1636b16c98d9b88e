"""Open this package for the outliers of a classifier's Hessian, as many as there are classes (arXiv 1901.08244)."""

from experiments.curvature import residual_curvature
from experiments.ledger.claim import Claim, Source, untestable

SOURCE = Source(
    "outliers",
    "Outliers",
    "Measurements of Three-Level Hierarchical Structure in the Outliers in the Spectrum of Deepnet Hessians",
    "2019-01",
    "https://arxiv.org/abs/1901.08244",
)
CLAIMS = [
    Claim(
        id="Papyan-outliers",
        group="training",
        assumptions=("a trained classifier", "cross-entropy"),
        source="abstract",
        evidence=untestable(
            "The spectrum of the Hessian has about as many outliers as there are classes, and they come from "
            "the means of gradients over classes.",
            residual_curvature.EXPERIMENT,
            "no spectrum of a classifier that was trained in full is kept, and what counts as an outlier would "
            "have to be fixed before one is seen",
        ),
        figure="residual_curvature",
        measured_on="convolutional networks on pictures",
        measurement="none: no such spectrum is kept",
    ),
]
