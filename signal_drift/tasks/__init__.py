"""Open this for something to learn, data and loss: a teacher, digits, rated text, pairs of sentences, worked answers.

>>> import jax
>>> from flax import nnx
>>> from signal_drift.models import MLP, base_and_forward
>>> base, forward = base_and_forward(MLP([3, 4, 2], rngs=nnx.Rngs(0)))
>>> data = teacher_regression(jax.random.key(1), samples=6, d_out=2, d_in=3)
>>> data.X.shape, data.Y.shape
((6, 3), (6, 2))
>>> loss = squared_error(forward, data)  # a function of the weights, as everything in signal_drift takes it
>>> loss(base).shape
()
"""

from signal_drift.tasks.answers import (
    Chats,
    Template,
    WorkedAnswer,
    answer_of,
    answered_right,
    batch_next_token_loss,
    draw_answers,
    is_right,
    next_token_loss,
    prompt,
    read_templates,
    split_templates,
    sum_templates,
    tokenise_chats,
)
from signal_drift.tasks.contrastive_pairs import Texts, batch_info_nce, info_nce, recall, similarities
from signal_drift.tasks.criteria import masked_cross_entropy, mean_cross_entropy, mean_square, sum_square
from signal_drift.tasks.digits import (
    Adaptation,
    Classification,
    accuracy,
    cross_entropy,
    rotated_digit_rows,
    rotated_digits,
)
from signal_drift.tasks.documents import distinct_documents, read_documents, split_documents
from signal_drift.tasks.flow_matching import Lines, batch_flow_loss, draw_lines, flow_loss, sampled
from signal_drift.tasks.rated_text import Rated, Tokens, apart_from, read_ratings, split_by_digest, tokenise
from signal_drift.tasks.rating_head import Examples, Head, batch_error, embeddings, rating_error, ridge_head
from signal_drift.tasks.teacher import Reduction, Regression, spectral_teacher, squared_error, teacher_regression

__all__ = [
    "Adaptation",
    "Chats",
    "Classification",
    "Examples",
    "Head",
    "Lines",
    "Rated",
    "Reduction",
    "Regression",
    "Template",
    "Texts",
    "Tokens",
    "WorkedAnswer",
    "accuracy",
    "answer_of",
    "answered_right",
    "apart_from",
    "batch_error",
    "batch_flow_loss",
    "batch_info_nce",
    "batch_next_token_loss",
    "cross_entropy",
    "distinct_documents",
    "draw_answers",
    "draw_lines",
    "embeddings",
    "flow_loss",
    "info_nce",
    "is_right",
    "masked_cross_entropy",
    "mean_cross_entropy",
    "mean_square",
    "next_token_loss",
    "prompt",
    "rating_error",
    "read_documents",
    "read_ratings",
    "read_templates",
    "recall",
    "ridge_head",
    "rotated_digit_rows",
    "rotated_digits",
    "sampled",
    "similarities",
    "spectral_teacher",
    "split_by_digest",
    "split_documents",
    "split_templates",
    "squared_error",
    "sum_square",
    "sum_templates",
    "teacher_regression",
    "tokenise",
    "tokenise_chats",
]
