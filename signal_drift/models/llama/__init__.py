"""Open this for a language model of the Llama family, or to load one from a Hugging Face folder or a GGUF file.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from signal_drift.models.bridge import base_and_forward
>>> config = LlamaConfig(11, 8, 12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=4)
>>> base, forward = base_and_forward(Llama(config, rngs=nnx.Rngs(0)))
>>> base["layers.0.attention.k"].shape, len(base)
((4, 8), 7)
>>> forward(base, jnp.array([[1, 5, 3]])).shape
(1, 3, 11)

`continued` lets it go on from prompts:

>>> tokens, own = continued(forward, config, base, jnp.array([[1, 5, 3]]), jnp.array([3]), length=5, end=0)
>>> tokens.shape, own.tolist()[0][:3]
((1, 5), [False, False, False])

`load_llama(folder)` and `load_gguf(path)` give a `Llama` with the weights of a file; `signal_drift.files` has the
tokenizers, `load_tokenizer(folder)` and `gguf_tokenizer(path)`.
"""

from signal_drift.models.llama.decoder import Llama, LlamaConfig
from signal_drift.models.llama.decoding import continued
from signal_drift.models.llama.gguf import load_gguf
from signal_drift.models.llama.hugging_face import load_llama

__all__ = ["Llama", "LlamaConfig", "continued", "load_gguf", "load_llama"]
