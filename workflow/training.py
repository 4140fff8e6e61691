"""Before a tuning: whether a set is of this program's pathways, and the functions that tune.

Those are loaded only when they are needed: their libraries are heavy and optional.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinical_data.errors import UsageError
from evaluation.supervision.cards import CARD, read_card
from evaluation.supervision.tuning_rows import check_versions, versions_of
from workflow.config import hashes_of
from workflow.pathway import known_pathways, load_pathway

Tune = Callable[..., dict[str, Any]]


def check_pathway(data: Path) -> None:
    """Compares the set of a bundled pathway with the pathway, catalogue and vocabularies as the program has them.

    With a set of somebody's own pathway, or without a card, there is nothing to compare.

    Args:
        data: folder of the set.

    Raises:
        BadInputError: one is of another version, so that the search would never ask what the model learns.
    """
    card = read_card(data / CARD)
    name = (card.get("pathway") or {}).get("name")
    if name not in known_pathways():
        return
    loaded = load_pathway(name)
    wanted = {**hashes_of(loaded.pathway), f"pathway {name}": loaded.sha256}
    check_versions(wanted, versions_of(card), what="this program", file=data / CARD)


def training_functions() -> dict[str, Tune]:
    """Returns method -> the function that tunes by it.

    Raises:
        UsageError: the libraries for training are not installed.
    """
    try:
        from evaluation.supervision.fine_tune import fine_tune
        from evaluation.supervision.stepwise_trainer import train_stepwise
        from evaluation.supervision.ttrl import train_ttrl
    except ImportError as error:
        hint = "pip install 'wardstar[train]'"
        raise UsageError(f"training needs a library that is not installed: {error.name}", hint=hint) from error
    return {"sft": fine_tune, "dpo": fine_tune, "stepwise": train_stepwise, "ttrl": train_ttrl}
