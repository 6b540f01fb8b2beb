"""What no recipe says and no file tells: shares of peaks, lengths, and what is taken for granted. One table for all.

docs/cost.md says where they come from, holds them against runs, and says how far off they are.
"""

from __future__ import annotations

MATRIX_SHARE = 0.30
"""Of the peak FLOP/s, in training, scoring and reading prompts (model FLOPs utilisation)."""
BANDWIDTH_SHARE = 0.60
"""Of the peak bytes/s, where weights and keys and values are read for each token."""
SCALING = 0.90
"""What a GPU of several still does in a training, beside one alone."""
LAYER_SECONDS = {"transformers": 5e-4, "vllm": 5e-5, "diffusion": 5e-4, "latent": 5e-4, "endpoint": 5e-5}
"""Least time of one layer in one pass: starting its kernels, one by one or, with vLLM, as a recorded graph."""
BACKWARD_LAYERS = 2
"""Passes through the layers that a backward pass takes, for that least time."""
CACHE_COPIES = {"transformers": 3, "vllm": 1, "diffusion": 0, "latent": 0, "endpoint": 1}
"""How often keys and values are moved for each new token: transformers reads, writes and reads them. Where several
heads share them it also writes them out, and reads them, for each head."""

CHARACTERS = 4.0
"""Of a token."""
TEMPLATE = 12
"""Tokens that a chat template puts around a turn, and those of a task's wording in `tune`."""
QUESTION, ANSWER = 100, 50
"""Tokens, where the data cannot be looked at."""
ROWS = 10_000
"""Of a data section, where they cannot be counted."""
ANSWER_SHARE = 0.5
"""Of `max_new_tokens`: the mean length of an answer, where no training of the recipe says how long answers are."""
LONGEST = 2.0
"""The longest answer of a batch over the mean; a batch of transformers runs until its longest ends."""
UNDECIDED = 0.5
"""Share of groups whose answers are neither all right nor all wrong, and of right answers in these."""
IMAGE_PIXELS = 448 * 448
"""Of an image, where the model does not fix it."""
IMAGE_SECONDS, PIXEL_SECONDS = 1e-3, 4e-8
"""Of one core, to open an image and make it a model's input, and for each of its pixels."""

PROCESS_BYTES = 800e6
"""A process with torch and transformers."""
TRIAL_BYTES, PAIR_BYTES = 850, 300
"""Of a line that is written for an answer or a proposal, beside its text; and it is kept twice, once in shards."""
CHECKPOINT_BYTES, TOKEN_BYTES = 10e3, 70
"""Config, template and processor of a checkpoint; its tokenizer, for each entry of the vocabulary."""
