"""Splits of patients into train, tuning and held-out, by hash and therefore the same everywhere.

A scheme says what is hashed: the patient (`patient`), or the hospital (`hospital`), so that a model is judged on
hospitals that it never saw.
"""

from __future__ import annotations

import hashlib

from clinical_data.errors import UsageError

TRAIN, TUNING, HELD_OUT = "train", "tuning", "held-out"
SPLITS = (TRAIN, TUNING, HELD_OUT)

PATIENT_SCHEME, HOSPITAL_SCHEME = "patient", "hospital"
SCHEMES = (PATIENT_SCHEME, HOSPITAL_SCHEME)


def split_of(source: str, patient_source_id: str) -> str:
    """Returns the split of a patient in the scheme `patient`.

    The first 8 hex digits of sha256("split:" + source + ":" + patient source id), over 16**8:
    below 0.7 train, below 0.8 tuning, else held-out.
    """
    return _by_hash(f"split:{source}:{patient_source_id}")


def hospital_split_of(source: str, hospital_id: str) -> str:
    """Returns the split of a hospital's patients in the scheme `hospital`.

    As `split_of`, over sha256("split-hospital:" + source + ":" + hospital id).
    """
    return _by_hash(f"split-hospital:{source}:{hospital_id}")


def half_of(patient_id: str) -> int:
    """Returns the half of the patients, 0 or 1, that one belongs to; it has nothing to do with the split.

    Two models that are tuned on a half each have no patient in common. The first 8 hex digits of
    sha256("half:" + patient id), over 16**8: below 0.5 the first half (0), else the second (1).
    """
    return int(_share(f"half:{patient_id}") >= 0.5)


def check_scheme(scheme: str) -> str:
    """Returns the name of a scheme.

    Raises:
        UsageError: there is no such scheme.
    """
    if scheme not in SCHEMES:
        raise UsageError(f"no split scheme named {scheme}", hint=f"known: {', '.join(SCHEMES)}")
    return scheme


def _by_hash(text: str) -> str:
    share = _share(text)
    if share < 0.7:
        return TRAIN
    return TUNING if share < 0.8 else HELD_OUT


def _share(text: str) -> float:
    """Returns a number in [0, 1) that depends on a text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
