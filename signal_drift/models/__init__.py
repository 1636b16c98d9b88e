"""Open this to take a flax.nnx model apart into base weights and a forward function, or for a model made for this.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> model = MLP([3, 4, 2], rngs=nnx.Rngs(0))  # or any other
>>> base, forward = base_and_forward(model)
>>> {path: W0.shape for path, W0 in base.items()}  # (d_out, d_in), as in y = W x
{'layers.0': (4, 3), 'layers.1': (2, 4)}
>>> x = jnp.ones((5, 3))
>>> bool(jnp.all(forward(base, x) == model(x)))
True
>>> sorted(base_and_forward(model, "*.1")[0])  # only the layers whose paths match
['layers.1']
"""

from signal_drift.models.attention import exact_attention
from signal_drift.models.bert import Bert, BertConfig, load_bert, mean_pooled
from signal_drift.models.bridge import Forward, base_and_forward, predictor
from signal_drift.models.flow_transformer import FlowTransformer
from signal_drift.models.kernel_layout import Layout, layout
from signal_drift.models.llama import Llama, LlamaConfig, load_gguf, load_llama
from signal_drift.models.lora_modules import LoRAModel, lora_and_forward
from signal_drift.models.mlp import MLP
from signal_drift.models.transformer import TransformerBlock, TransformerClassifier

__all__ = [
    "MLP",
    "Bert",
    "BertConfig",
    "FlowTransformer",
    "Forward",
    "Layout",
    "Llama",
    "LlamaConfig",
    "LoRAModel",
    "TransformerBlock",
    "TransformerClassifier",
    "base_and_forward",
    "exact_attention",
    "layout",
    "load_bert",
    "load_gguf",
    "load_llama",
    "lora_and_forward",
    "mean_pooled",
    "predictor",
]
