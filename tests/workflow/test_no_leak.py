"""No ground truth and no later fact in any prompt: canaries planted in raw records, looked for in `wardstar prompts`.

Traps of clinical.md: codes of the same case (1), later results (4), future columns of visible rows (14), label columns
of eICU (12), clocks that no truth row may move (16).
"""

import copy
import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinical_data.catalogue import load_catalogue
from clinical_data.demo import bundle_folder
from clinical_data.sources import ImportLog
from clinical_data.sources.eicu import EicuSource
from clinical_data.sources.fhir import FhirSource
from search.models.toys import RandomModel
from search.problem import Models
from search.strategies import run_search
from workflow.cli import main
from workflow.config import ReplayOptions, make_config, prepare
from workflow.step import clock_of, problem_of

CANARY = "zugzwang"  # a word that neither a prompt template nor a bundled record holds
STEP = "admission_diagnosis"
Json = dict[str, Any]


def read_bundle(name: str = "ward-0015") -> Json:
    (path,) = bundle_folder().glob(f"{name}.json.gz")
    bundle: Json = json.loads(gzip.decompress(path.read_bytes()))
    return bundle


def admission_of(bundle: Json) -> datetime:
    stays = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Encounter"]
    (own,) = (s for s in stays if "partOf" not in s)
    return datetime.fromisoformat(own["period"]["start"])


def known_at(resource: Json) -> datetime | None:
    """The earliest moment at which the generator's resource says anything: collection, order or entry."""
    for name in ("effectiveDateTime", "authoredOn", "issued", "recordedDate", "performedDateTime", "dateAsserted"):
        if name in resource:
            at = datetime.fromisoformat(resource[name])
            return at if at.tzinfo else at.replace(tzinfo=UTC)  # a date alone
    return None


def later_than(bundle: Json, clock: datetime) -> list[int]:
    entries = (e["resource"] for e in bundle["entry"])
    return [i for i, r in enumerate(entries) if (at := known_at(r)) is not None and at > clock]


def spoil(resource: Json) -> None:
    """Replaces every word a person could read in a resource by the canary; codes and times stay."""
    for name, value in list(resource.items()):
        if isinstance(value, dict):
            spoil(value)
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    spoil(part)
        elif name in ("text", "display", "valueString", "conclusion", "description"):
            resource[name] = f"{CANARY} {CANARY}"
        elif name == "value" and isinstance(value, int | float):
            resource[name] = 31337


def prompts_of(cases: Any, name: str | None = None) -> list[str]:
    plan = prepare(make_config(ReplayOptions(steps=(STEP,), generator="random:3", settings={"rollouts": 4}))).plans[
        STEP
    ]
    model = RandomModel(3)
    sent: list[str] = []
    for labelled in cases:
        clock = clock_of(labelled.case, plan.step)
        assert clock is not None
        problem = problem_of(labelled.case, plan, clock)
        for strategy in ("rstar", "full-information"):
            sent += [c.text for c in run_search(strategy, problem, Models(model, model), plan.settings, 1).calls]
    return sent


def prompts_of_bundle(bundle: Json, folder: Path) -> list[str]:
    path = folder / "bundle.json"
    path.write_text(json.dumps(bundle), encoding="utf-8")
    broken: list[Any] = []
    sent = prompts_of(FhirSource().read(path, ImportLog(broken.append)))
    assert not broken
    return sent


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_later_facts_may_be_altered_added_or_deleted_without_changing_a_byte(data: Any, tmp_path: Path) -> None:
    """Traps 4, 14, 17: any subset of what became known after the clock, in a record that anyone could have written."""
    bundle = read_bundle(data.draw(st.sampled_from(["ward-0001", "ward-0015", "ward-0020"])))
    later = later_than(bundle, admission_of(bundle) + timedelta(hours=6))
    assert len(later) > 20
    chosen = data.draw(st.lists(st.sampled_from(later), min_size=1, max_size=len(later), unique=True))
    deed = data.draw(st.sampled_from(["alter", "delete", "add"]))
    changed = copy.deepcopy(bundle)
    labels = {"Condition"}  # deleting a label's Condition is trap 1, below; here it would only dangle
    for i in sorted(chosen, reverse=True):
        resource = changed["entry"][i]["resource"]
        if deed == "alter":
            spoil(resource)
        elif deed == "delete" and resource["resourceType"] not in labels:
            del changed["entry"][i]
        elif deed == "add":
            extra = copy.deepcopy(changed["entry"][i])
            extra["fullUrl"] = f"urn:uuid:00000000-0000-4000-8000-{i:012d}"
            extra["resource"]["id"] = f"extra-{i}"
            spoil(extra["resource"])
            changed["entry"].append(extra)
    before, after = prompts_of_bundle(bundle, tmp_path), prompts_of_bundle(changed, tmp_path)
    assert before
    assert after == before
    assert CANARY not in "\n".join(after)


def test_labels_and_future_columns_change_no_byte(tmp_path: Path) -> None:
    """Traps 1, 14, 16: the codes of the stay, how and where it ended, death, class and priority."""
    bundle = read_bundle()
    changed = copy.deepcopy(bundle)
    own = {"AD", "DD", "CM"}
    for entry in changed["entry"]:
        resource = entry["resource"]
        kind = resource["resourceType"]
        if kind == "Condition" and "encounter" in resource:
            resource["code"] = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "Z99.9"}]}
            resource["code"]["text"] = resource["code"]["coding"][0]["display"] = CANARY
        if kind == "Patient":
            resource["deceasedDateTime"] = "2030-01-01T00:00:00+00:00"
        if kind == "Encounter" and "partOf" not in resource:
            assert {c["code"] for d in resource["diagnosis"] for c in d["use"]["coding"]} <= own
            resource["hospitalization"]["dischargeDisposition"] = {"text": CANARY}
            resource["priority"] = {"text": CANARY}
            resource["reasonCode"] = [{"text": CANARY}]
            resource["period"]["end"] = "2031-01-01T00:00:00+00:00"
            resource["class"]["code"] = "ACUTE"
    after = prompts_of_bundle(changed, tmp_path)
    assert after == prompts_of_bundle(bundle, tmp_path)
    assert CANARY not in "\n".join(after)


def write_eicu(folder: Path, canary: str, late: str) -> Path:
    """One unit stay, with `canary` in every label column and `late` in every fact after 6 hours."""
    past = "notes/Progress Notes/Past History/Organ Systems/Cardiovascular (R)/Congestive Heart Failure"
    tables = {
        "patient": "patientunitstayid,uniquepid,gender,age,apacheadmissiondx,hospitalid,unittype,unitadmitsource,"
        "unitvisitnumber,unitdischargeoffset,unitdischargelocation,unitdischargestatus\n"
        f"1,p,Female,70,{canary},5,MICU,Floor,1,4000,{canary},{late}\n",
        "admissionDx": "admissiondxid,patientunitstayid,admitdxenteredoffset,admitdxpath,admitdxname,admitdxtext\n"
        f"1,1,10,admission diagnosis|All Diagnosis|Non-operative|Diagnosis|Cardiovascular|{canary},{canary},{canary}\n",
        "diagnosis": "diagnosisid,patientunitstayid,activeupondischarge,diagnosisoffset,diagnosisstring,icd9code,"
        f"diagnosispriority\n1,1,True,10,cardiovascular|{canary}|{canary},{canary},Primary\n",
        "treatment": "treatmentid,patientunitstayid,treatmentoffset,treatmentstring,activeupondischarge\n"
        f"1,1,20,cardiovascular|{canary}|{canary},False\n",
        "pastHistory": "pasthistoryid,patientunitstayid,pasthistoryoffset,pasthistoryenteredoffset,pasthistorypath,"
        f"pasthistoryvalue,pasthistoryvaluetext\n1,1,10,20,{past}/CHF,CHF,CHF\n2,1,10,{late},{past}/late,{canary},x\n",
        "lab": "labid,patientunitstayid,labresultoffset,labtypeid,labname,labresult,labresulttext,"
        "labmeasurenamesystem,labresultrevisedoffset\n"
        f"1,1,100,1,sodium,131,131,mmol/L,140\n2,1,{late},1,creatinine,31337,31337,mg/dL,{late}\n",
    }
    folder.mkdir()
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


def test_eicu_label_columns_and_later_rows_never_reach_a_prompt(tmp_path: Path) -> None:
    """Traps 12, 14, 15: label tables, treatment strings, discharge columns, and rows entered after 6 hours."""
    sent = []
    for n, (canary, late) in enumerate(((CANARY, "361"), ("other", "9000"))):
        cases = list(EicuSource().read(write_eicu(tmp_path / str(n), canary, late), ImportLog(lambda trouble: None)))
        assert len(cases) == 1
        assert canary in repr(cases[0].truth)
        sent.append(prompts_of(cases))
    assert sent[0] == sent[1]
    assert "131" in "\n".join(sent[0])
    assert CANARY not in "\n".join(sent[0])
    assert "31337" not in "\n".join(sent[0])


@pytest.mark.parametrize("strategy", ["rstar", "greedy", "self-consistency", "full-information"])
def test_no_line_of_the_exported_prompts_holds_a_label_or_a_later_fact(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way by the command line, of every bundled record cut to one with canaries after the clock."""
    bundle = read_bundle()
    for i in later_than(bundle, admission_of(bundle) + timedelta(hours=6)):
        spoil(bundle["entry"][i]["resource"])
    for entry in bundle["entry"]:
        if entry["resource"]["resourceType"] == "Condition" and "encounter" in entry["resource"]:
            spoil(entry["resource"])
    (tmp_path / "bundle.json").write_text(json.dumps(bundle), encoding="utf-8")
    url, out = f"sqlite:///{tmp_path / 'a.db'}", tmp_path / "prompts.jsonl"

    def call(*arguments: object) -> None:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        assert not left.value.code, capsys.readouterr().err

    call("import", "fhir", tmp_path / "bundle.json", "--db", url)
    replay: tuple[object, ...] = ("replay", "--db", url, "--run", "a", "--generator", "random:3", "--steps", STEP)
    call(*replay, "--strategy", strategy, "--rollouts", 6)
    call("prompts", "--db", url, "--run", "a", "--out", out)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines
    assert not [line for line in lines if CANARY in line or "31337" in line]
    checkpoints = tmp_path / "a.db.checkpoints"
    assert CANARY.encode() not in checkpoints.read_bytes()


def test_the_canary_is_seen_when_the_clock_lets_it_through(tmp_path: Path) -> None:
    """The tests above can fail: a canary in a fact known before the clock does reach a prompt."""
    bundle = read_bundle()
    clock = admission_of(bundle) + timedelta(hours=6)
    for entry in bundle["entry"]:
        resource = entry["resource"]
        at = known_at(resource)
        if resource["resourceType"] == "Observation" and at is not None and at < clock:
            spoil(resource)
    assert CANARY in "\n".join(prompts_of_bundle(bundle, tmp_path))
    assert load_catalogue().item("chief_complaint") is not None
