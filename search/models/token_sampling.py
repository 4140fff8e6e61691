"""Choosing tokens: temperature, top-p, and one uniform number per token, drawn from the request's own seed."""

from __future__ import annotations

import torch
from torch import Tensor

# Candidates looked at first; where they hold less than top_p of the probability, the whole vocabulary is sorted.
CANDIDATES = 256


def uniform_noise(seed: int, count: int) -> list[float]:
    """Returns `count` numbers in [0, 1) that depend on `seed` (64 bit) alone."""
    generator = torch.Generator().manual_seed(seed & 0xFFFF_FFFF_FFFF_FFFF)
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def sample_tokens(
    logits: Tensor, temperature: list[float], top_p: list[float], noise: list[float]
) -> tuple[list[int], list[float]]:
    """Samples one token per row by inverting the cumulative distribution of its nucleus.

    Args:
        logits: [B, vocabulary], float32.
        temperature: per row; 0 takes the most probable token.
        top_p: per row; the nucleus is the fewest most probable tokens that together reach it.
        noise: per row, in [0, 1).

    Returns:
        Tokens, -1 where logits are not finite; and ln p of each token at temperature 1 over the whole vocabulary.
    """
    total = logits.logsumexp(dim=-1)  # [B]
    tokens = logits.argmax(dim=-1)  # [B]
    drawn = [row for row, t in enumerate(temperature) if t > 0 and bool(total[row].isfinite())]
    if drawn:
        heat = logits.new_tensor([temperature[row] for row in drawn])
        tokens[drawn] = _draw(
            logits[drawn] / heat[:, None],
            torch.tensor([top_p[row] for row in drawn], dtype=torch.float64, device=logits.device),
            torch.tensor([noise[row] for row in drawn], dtype=torch.float64, device=logits.device),
            CANDIDATES,
        )
    logprobs = logits.gather(1, tokens[:, None])[:, 0] - total
    tokens = tokens.masked_fill(~total.isfinite(), -1)
    return tokens.tolist(), logprobs.tolist()


def _draw(logits: Tensor, top_p: Tensor, noise: Tensor, candidates: int) -> Tensor:
    """Draws from the nucleus of each row: logits [B, vocabulary], top_p and noise [B]; returns tokens [B]."""
    candidates = min(candidates, logits.shape[1])
    best = logits.topk(candidates, dim=-1)  # values and indices [B, candidates], most probable first
    p = (best.values - logits.logsumexp(dim=-1, keepdim=True)).double().exp()
    up_to = p.cumsum(dim=-1)
    in_nucleus = (up_to - p) < top_p[:, None]
    mass = (p * in_nucleus).sum(dim=-1)
    choice = torch.searchsorted(up_to, (noise * mass)[:, None], right=True)[:, 0]
    choice = choice.minimum(in_nucleus.sum(dim=-1) - 1)
    tokens = best.indices.gather(1, choice[:, None])[:, 0]
    # Too few candidates: those rows again with every token.
    short = up_to[:, -1] < top_p
    if candidates < logits.shape[1] and bool(short.any()):
        tokens[short] = _draw(logits[short], top_p[short], noise[short], logits.shape[1])
    return tokens
