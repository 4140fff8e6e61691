"""Synthetic general-ward cases: a seeded generator and the bundles it made, shipped as package data.

Nobody in them ever lived; every resource carries the security label HTEST.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def bundle_folder() -> Path:
    """Returns the folder of the bundled FHIR R4 cases (`*.json.gz`, one patient and admission each)."""
    return Path(str(files(__name__) / "bundles"))
