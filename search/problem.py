"""One question to a search: the chart at its clock, what may be asked, and the form of the answer."""

from __future__ import annotations

from dataclasses import dataclass

from clinical_data.catalogue import CatalogueItem
from clinical_data.chart import Chart
from clinical_data.vocabulary import Vocabulary
from search.models.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class SearchProblem:
    """A step of a case as the search sees it. Holds nothing later than the clock and no ground truth.

    Attributes:
        case_id, step, occurrence: what is being worked on; seeds derive from them.
        question: what is asked ("What is the working diagnosis?").
        answer_cue: word before the answer ("Working diagnosis").
        chart: the chart cut at the clock.
        opening: items answered in the prompt before the search begins (chief complaint).
        items: what may be requested; the same for every patient.
        vocabulary: the answers, with the names by which they are known.
        form: `one` answer of the vocabulary, or a `set` of them (differential, workup, treatment).
        most: most answers of a set.
        clock_text: the clock in words ("6 hours after unit admission").
        earlier: conclusions of earlier steps, in words (predicted, recorded or none).
        language: in which the model is asked (`search.wording`).
    """

    case_id: str
    step: str
    question: str
    answer_cue: str
    chart: Chart
    opening: tuple[CatalogueItem, ...]
    items: tuple[CatalogueItem, ...]
    vocabulary: Vocabulary
    clock_text: str
    earlier: tuple[str, ...] = ()
    occurrence: int = 1
    form: str = "one"
    most: int = 1
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Models:
    """The language models of a search.

    Attributes:
        generator: makes the turns.
        peer: checks them; may be the generator itself, under other seeds and another prompt.
        value: judges trajectories where `--value model:SPEC` names one (`search.models.value_head`), else None.
    """

    generator: LanguageModel
    peer: LanguageModel
    value: LanguageModel | None = None

    @property
    def distinct(self) -> tuple[LanguageModel, ...]:
        """The models, each once."""
        return tuple(dict.fromkeys(m for m in (self.generator, self.peer, self.value) if m is not None))

    @property
    def peer_is_generator(self) -> bool:
        """Says whether both roles share one set of weights."""
        return self.peer is self.generator
