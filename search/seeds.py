"""Randomness as a value: every seed derives from what it is for, never from the order of calls."""

from __future__ import annotations

import hashlib
import random


def derive_seed(*parts: object) -> int:
    """Returns a 63-bit seed from the parts; equal parts give equal seeds in any process."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def derive_random(*parts: object) -> random.Random:
    """Returns a generator of random numbers of its own for the parts."""
    return random.Random(derive_seed(*parts))
