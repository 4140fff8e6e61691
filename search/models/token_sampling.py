"""Choosing tokens: temperature, top-p, the tokens allowed, and one uniform number per token from the request's seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Candidates looked at first; where they hold less than top_p of the probability, the whole vocabulary is sorted.
CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class Wish:
    """How one token is to be drawn.

    Attributes:
        temperature: 0 takes the most probable token.
        top_p: the nucleus is the fewest most probable tokens that together reach it.
        noise: uniform in [0, 1).
        allowed: the tokens that may be drawn, at least one; None allows all.
    """

    temperature: float
    top_p: float
    noise: float
    allowed: Sequence[int] | None = None


def uniform_noise(seed: int, count: int) -> list[float]:
    """Returns `count` numbers in [0, 1) that depend on `seed` (64 bit) alone."""
    generator = torch.Generator().manual_seed(seed & 0xFFFF_FFFF_FFFF_FFFF)
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def sample_tokens(logits: Tensor, wishes: Sequence[Wish]) -> tuple[list[int], list[float]]:
    """Samples one token per row by inverting the cumulative distribution of its nucleus.

    Temperature and top-p act on the distribution over the tokens allowed.

    Args:
        logits: [B, vocabulary], float32.
        wishes: one per row.

    Returns:
        Tokens, -1 where logits are not finite or none allowed has any probability; and ln p of each token at
        temperature 1 over the whole vocabulary.
    """
    total = logits.logsumexp(dim=-1)  # [B]
    tokens = logits.argmax(dim=-1)  # [B]
    sound = total.isfinite()  # [B]
    finite = sound.tolist()
    free = [row for row, w in enumerate(wishes) if finite[row] and w.allowed is None and w.temperature > 0]
    if free:
        tokens[free] = _draw_warm(logits[free], [wishes[row] for row in free])
    bound = [row for row, w in enumerate(wishes) if finite[row] and w.allowed is not None]
    if bound:
        tokens[bound], possible = _draw_allowed(logits[bound], [wishes[row] for row in bound])
        sound[bound] = possible
    logprobs = logits.gather(1, tokens[:, None])[:, 0] - total
    tokens = tokens.masked_fill(~sound, -1)
    return tokens.tolist(), logprobs.tolist()


def _draw_allowed(logits: Tensor, wishes: Sequence[Wish]) -> tuple[Tensor, Tensor]:
    """Draws among the tokens allowed: logits [B, vocabulary]; returns tokens [B], and which rows have one, [B]."""
    allowed = [list(w.allowed or ()) for w in wishes]
    width = max(map(len, allowed))
    index = torch.tensor([ids + ids[:1] * (width - len(ids)) for ids in allowed], device=logits.device)  # [B, width]
    padding = torch.tensor([[i >= len(ids) for i in range(width)] for ids in allowed], device=logits.device)
    those = logits.gather(1, index).masked_fill(padding, float("-inf"))
    place = those.argmax(dim=-1)
    possible = those.amax(dim=-1).isfinite()
    can = possible.tolist()
    drawn = [row for row, w in enumerate(wishes) if w.temperature > 0 and can[row] and len(allowed[row]) > 1]
    if drawn:
        place[drawn] = _draw_warm(those[drawn], [wishes[row] for row in drawn])
    return index.gather(1, place[:, None])[:, 0], possible


def _draw_warm(logits: Tensor, wishes: Sequence[Wish]) -> Tensor:
    """Draws at temperatures above 0: logits [B, vocabulary]; returns tokens [B]."""
    heat = logits.new_tensor([w.temperature for w in wishes])
    top_p, noise = (
        torch.tensor(numbers, dtype=torch.float64, device=logits.device)
        for numbers in ([w.top_p for w in wishes], [w.noise for w in wishes])
    )
    return _draw(logits / heat[:, None], top_p, noise, CANDIDATES)


def _draw(logits: Tensor, top_p: Tensor, noise: Tensor, candidates: int) -> Tensor:
    """Draws from the nucleus of each row: logits [B, vocabulary], top_p and noise [B]; returns tokens [B]."""
    candidates = min(candidates, logits.shape[1])
    best = logits.topk(candidates, dim=-1)  # values and indices [B, candidates], most probable first
    p = (best.values - logits.logsumexp(dim=-1, keepdim=True)).double().exp()
    up_to = p.cumsum(dim=-1)
    in_nucleus = ((up_to - p) < top_p[:, None]) & (p > 0)  # rounding must not let in what cannot be
    mass = (p * in_nucleus).sum(dim=-1)
    choice = torch.searchsorted(up_to, (noise * mass)[:, None], right=True)[:, 0]
    choice = choice.minimum(in_nucleus.sum(dim=-1) - 1)
    tokens = best.indices.gather(1, choice[:, None])[:, 0]
    # Too few candidates: those rows again with every token.
    short = up_to[:, -1] < top_p
    if candidates < logits.shape[1] and bool(short.any()):
        tokens[short] = _draw(logits[short], top_p[short], noise[short], logits.shape[1])
    return tokens
