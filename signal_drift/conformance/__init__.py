"""Open this to ask whether a framework's α is the α of the theory: s, σ_A, B = 0, precision and tying from outside.

A framework that says α/r = 8/4 and multiplies by α:

>>> import numpy as np
>>> W0, draws = np.eye(6, 8), np.random.default_rng(0)
>>> said = {"q_proj": Layer(shape=(6, 8), r=4, alpha=8.0, sigma_a=(1 / 24) ** 0.5)}
>>> begins = {"q_proj": Factors(A=draws.uniform(-1, 1, (4, 8)) / 8**0.5, B=np.zeros((6, 4)))}
>>> def forward(theta, inputs):
...     return {k: inputs[k] @ (W0 + 8.0 * B @ A).T for k, (A, B) in theta.items()}
>>> certificate = certify(Framework("mine", said, begins, forward))
>>> certificate.holds
False
>>> certificate.contradictions[0]
"layer 'q_proj': s is 8, and is said to be α/r = 8/4 = 2: as if it were α (not divided by r)"

`certify` takes a model of flax with nnx.LoRA, of PEFT or of Keras as it is, and `of_qwix` shows one of qwix. Of what is
on disk, `stored_layers(folder)` reads what is said, and `certify_outputs` compares it with outputs.
"""

from signal_drift.conformance.certificate import Certificate, Finding, certify, certify_outputs
from signal_drift.conformance.framework import Factors, Framework, Layer
from signal_drift.conformance.initialisation import SigmaInterval, sigma_interval
from signal_drift.conformance.kinds import framework_of
from signal_drift.conformance.of_keras import of_keras
from signal_drift.conformance.of_nnx import of_nnx
from signal_drift.conformance.of_peft import of_peft
from signal_drift.conformance.of_qwix import of_qwix
from signal_drift.conformance.scaling import Fit, Observation, fitted_scaling
from signal_drift.conformance.stored import stored_layers

__all__ = [
    "Certificate",
    "Factors",
    "Finding",
    "Fit",
    "Framework",
    "Layer",
    "Observation",
    "SigmaInterval",
    "certify",
    "certify_outputs",
    "fitted_scaling",
    "framework_of",
    "of_keras",
    "of_nnx",
    "of_peft",
    "of_qwix",
    "sigma_interval",
    "stored_layers",
]
