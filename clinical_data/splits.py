"""Split of patients into train, tuning and held-out, by hash and therefore the same everywhere."""

from __future__ import annotations

import hashlib

TRAIN, TUNING, HELD_OUT = "train", "tuning", "held-out"
SPLITS = (TRAIN, TUNING, HELD_OUT)


def split_of(source: str, patient_source_id: str) -> str:
    """Returns the split of a patient.

    The first 8 hex digits of sha256("split:" + source + ":" + patient source id), over 16**8:
    below 0.7 train, below 0.8 tuning, else held-out.
    """
    digest = hashlib.sha256(f"split:{source}:{patient_source_id}".encode()).hexdigest()
    share = int(digest[:8], 16) / 16**8
    if share < 0.7:
        return TRAIN
    return TUNING if share < 0.8 else HELD_OUT
