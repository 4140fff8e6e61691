"""Two versioned lists that only scoring reads: what must not be missed, and what a guideline requires.

Each entry names ICD-10-CM categories and classes of closed vocabularies, and its source. The files lie beside
this one: they are no answer vocabularies, and no prompt ever shows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinical_data.codes import is_icd10
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Label
from clinical_data.vocabulary import Vocabulary
from evaluation.matching import CATEGORY, key_level, label_classes

MUST_NOT_MISS, REQUIRED_ITEMS = "must-not-miss", "required-items"


class Condition(BaseModel):
    """One entry.

    Attributes:
        condition: in words.
        source: citation.
        icd10: ICD-10-CM categories, 3 characters.
        answers: name of a closed vocabulary -> codes of its answers.
        items: catalogue items that are required.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    condition: str
    source: str = Field(min_length=10)
    icd10: tuple[str, ...] = ()
    answers: dict[str, tuple[str, ...]] = {}
    items: tuple[str, ...] = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int
    checked: bool
    source: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class ClinicalList:
    """A list of conditions, looked up by recorded label.

    Attributes:
        name, version: as the file says.
        checked: somebody has held it against its sources.
    """

    name: str
    version: int
    checked: bool
    conditions: tuple[Condition, ...]

    def covers(self, label: Label, vocabulary: Vocabulary) -> bool:
        """Says whether a recorded label falls under any condition."""
        return any(True for _ in self._of(label, vocabulary))

    def speaks_of(self, vocabulary: Vocabulary) -> bool:
        """Says whether any condition has a class of this vocabulary; if not, the list says nothing about a step."""
        return is_icd10(vocabulary.system) or any(c.answers.get(vocabulary.name) for c in self.conditions)

    def items(self, label: Label, vocabulary: Vocabulary) -> frozenset[str]:
        """Returns the items that the conditions of a recorded label require; empty without any."""
        return frozenset(item for c in self._of(label, vocabulary) for item in c.items)

    def _of(self, label: Label, vocabulary: Vocabulary) -> Iterator[Condition]:
        classes = label_classes(label, vocabulary)
        if is_icd10(vocabulary.system):
            category = classes.get(CATEGORY)
            yield from (c for c in self.conditions if category in c.icd10)
            return
        answer = classes.get(key_level(vocabulary))
        yield from (c for c in self.conditions if answer in c.answers.get(vocabulary.name, ()))


@cache
def clinical_list(name: str) -> ClinicalList:
    """Returns a bundled list: `must-not-miss` or `required-items`."""
    return read_list(Path(str(files("evaluation.clinical_lists") / f"{name}.yaml")))


def read_list(path: Path) -> ClinicalList:
    """Returns the list in a YAML file.

    Raises:
        BadInputError: it cannot be read, or is no such list.
    """
    try:
        found = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror})", file=path) from error
    except yaml.YAMLError as error:
        raise BadInputError("invalid YAML", file=path) from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise BadInputError(str(first["msg"]), file=path, field=".".join(map(str, first["loc"]))) from error
    return ClinicalList(found.name, found.version, found.checked, found.conditions)
