"""The adapters that come with the package: they fit the embedded model, and know no bundled case."""

import hashlib
from pathlib import Path

import pytest

from clinical_data.demo import bundle_folder
from clinical_data.sources import ImportLog
from clinical_data.sources.fhir import FhirSource
from evaluation.supervision.cards import CARD, read_card
from search.models.adapters import folder_of, read_adapter
from search.models.embedded import is_installed
from search.models.weight_files import bundled_adapters, find_weights


def test_generator_and_peer_were_taught_on_disjoint_halves_of_other_patients() -> None:
    assert bundled_adapters() == ["generator", "peer"]
    bundled = {
        hashlib.sha256(labelled.case.patient.patient_id.encode()).hexdigest()
        for labelled in FhirSource().read(Path(bundle_folder()), ImportLog(lambda trouble: pytest.fail(trouble.reason)))
    }
    taught = {
        name: set(read_card(folder_of(f"embedded:{name}") / CARD)["patients"]["train"])
        for name in ("generator", "peer")
    }
    assert len(bundled) == 32
    assert min(map(len, taught.values())) > 90
    assert not taught["generator"] & taught["peer"]
    assert not bundled & (taught["generator"] | taught["peer"])


def test_they_stand_on_the_embedded_model() -> None:
    assert read_adapter(folder_of("embedded:peer")).base_spec == "embedded"
    if not is_installed():
        pytest.skip("the embedded model is not installed")
    found = {name: find_weights(f"embedded:{name}") for name in ("generator", "peer")}
    assert {f.name.rpartition("+")[2] for f in found.values()} == {"generator", "peer"}
    assert len({f.revision for f in found.values()}) == 2
