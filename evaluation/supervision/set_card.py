"""The card of a training set: what is in it, where it comes from, what it must not be taken for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from clinical_data.errors import StorageError
from clinical_data.splits import PATIENT_SCHEME
from clinical_data.vocabulary import Vocabulary, load_vocabulary, vocabulary_texts
from evaluation.store.run_store import Run
from evaluation.supervision.cards import VOCABULARIES
from evaluation.supervision.lessons import Lessons
from evaluation.supervision.sft import REVIEWER
from evaluation.supervision.shaping import PREFERENCE, PROMPTS, SFT, STEPWISE, Row, length, line_of

README = "README.md"
CARD_VERSION = 1

LICENCES = {
    "fhir": "that of the export; bundled cases and Synthea: Apache-2.0; MIMIC-IV on FHIR demo: ODbL 1.0",
    "eicu": "demo: ODbL 1.0; full set: PhysioNet Credentialed Health Data License 1.5.0",
    "mimic-iv": "demo: ODbL 1.0; full set: PhysioNet Credentialed Health Data License 1.5.0",
    "mimic-iii": "demo: ODbL 1.0; full set: PhysioNet Credentialed Health Data License 1.5.0",
    "meds": "that of the source it was converted from",
    "osce": "AgentClinic: MIT",
    "ddxplus": "CC BY 4.0",
}
COUNTED = {
    SFT: ("role", "turn", "label_source", "cold_start", "verified", "source", "run"),
    PREFERENCE: ("pair", "turn", "label_source", "source", "run"),
    STEPWISE: ("label_source", "verified", "source", "run"),
    PROMPTS: ("label_source", "source", "run"),
}
LIMITS = {
    SFT: (
        "Turns of a cold start led their model to another answer than the recorded one: only the answer was replaced. "
        "They may argue for something else; `cold_start` marks them.",
        "A thought is taught because its trajectory ended right, not because anyone judged it.",
    ),
    PREFERENCE: (
        "A turn is preferred because the recorded answer was likelier after it, over few rollouts (`chosen_visits`, "
        "`rejected_visits`); small margins are noise.",
    ),
    STEPWISE: (
        "A turn's label says how rollouts through it ended, over few rollouts (`visits`), not whether it is true.",
    ),
    PROMPTS: (
        "What most of a group answer is not thereby right.",
        "An answer that a peer stood by (`label_source` is `peer`) is that of two models, not the record's.",
    ),
}
BY_READERS = (
    "Where `label_source` is `reviewer` the word is that of clinicians who read the record, saw the model's answer and "
    "permit training: not the record's, and not that of whoever treated the patient.",
)
RATED = ("A turn's label and value are what readers rated it, from 1 to 5, not how rollouts through it ended.",)
EVERY_SET = (
    "The recorded answer is what the record shows, not necessarily what was right or could be known at the clock.",
    "Rows hold what patients' charts said at the clock. Keep them where the source may be kept, under its licence; "
    "a model tuned on them may repeat them.",
    "For retrospective research, not for care.",
)


def make_card(
    kind: str,
    lessons: Lessons,
    files: Mapping[str, Sequence[Row]],
    *,
    options: dict[str, Any],
    contradictions: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Returns the card of a set as plain data; it holds no time and no place, so that equal sets have equal cards.

    Args:
        kind: `sft`, `preference`, `stepwise` or `prompts`.
        lessons: the runs it was made of, read to the end.
        files: split -> rows.
        options: how it was made.
        contradictions: split -> where one prompt has several answers.
    """
    first = lessons.runs[0].config
    sources = sorted({row["source"] for rows in files.values() for row in rows})
    card: dict[str, Any] = {
        "version": CARD_VERSION,
        "kind": kind,
        "made_by": f"wardstar {version('wardstar')}",
        "options": options,
        "length_in": "characters",
        "pathway": {name: first["pathway"][name] for name in ("name", "version", "sha256")},
        "split_scheme": first.get("split_scheme", PATIENT_SCHEME),
        "hashes": dict(sorted(first["hashes"].items())),
        "vocabularies": _vocabularies(lessons.vocabularies),
        "runs": [_run(run) for run in lessons.runs],
        "splits": {split: _figures(rows, kind) for split, rows in files.items()},
        "left_out": dict(sorted(lessons.dropped.items())),
        "contradictions": contradictions,
        "licences": {source: LICENCES.get(source, "not known") for source in sources},
        "limits": _limits(kind, files),
    }
    return card


def _limits(kind: str, files: Mapping[str, Sequence[Row]]) -> list[str]:
    sources = {row["label_source"] for rows in files.values() for row in rows}
    read = REVIEWER in sources
    own = RATED if kind == STEPWISE and read else LIMITS[kind]
    return [*own, *(BY_READERS if read else ()), *EVERY_SET]


def carry_vocabularies(vocabularies: Mapping[str, Vocabulary], folder: Path, put: Callable[[Path, str], None]) -> None:
    """Copies the files of vocabularies into a set, so that a model tuned on it keeps its answers.

    Args:
        vocabularies: name under which a pathway knows it -> vocabulary.
        folder: the set.
        put: writes a text to a file.

    Raises:
        StorageError: a file has changed since it was loaded.
    """
    for name, vocabulary in sorted(vocabularies.items()):
        (_, main), *others = vocabulary_texts(name).items()
        place = folder / VOCABULARIES / f"{vocabulary.name}.yaml"
        put(place, main)
        for other, text in others:
            put(place.parent / other, text)
        if load_vocabulary(str(place)).sha256 != vocabulary.sha256:
            raise StorageError(f"vocabulary {vocabulary.name} changed while the set was made")


def readme(card: Mapping[str, Any]) -> str:
    """Returns a card as text for people, with a head from which `datasets` knows the files."""
    splits: Mapping[str, Any] = card["splits"]
    files = [{"split": split, "path": f"{split}.jsonl"} for split in splits]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    pathway = card["pathway"]
    lines = [
        f"---\n{head}---",
        f"# {card['kind']} set of {', '.join(run['name'] for run in card['runs'])}",
        f"Made by {card['made_by']} from stored runs of pathway {pathway['name']} {pathway['version']}. "
        "Fields and rules: docs/training-sets.md. `card.json` holds the same figures, and all hashes.",
        "`train.jsonl` teaches. "
        + ("`tuning.jsonl` is of other patients: for stopping early, never for teaching. " if len(splits) > 1 else "")
        + "No case of another split is in it."
        + _confined(card["options"]),
    ]
    for split, figures in splits.items():
        lines += [f"## {split}.jsonl", _table(figures)]
    lines += [
        "## Runs",
        _list(
            f"{run['name']}: {run['strategy']}, value {run['value']}, generator {run['generator']}, peer {run['peer']}"
            f", seed {run['seed']}, configuration {run['config_hash'][:16]}"
            for run in card["runs"]
        ),
        "## Answer vocabularies",
        _list(f"{v['file']}: {v['entries']} answers, sha256 {v['sha256'][:16]}" for v in card["vocabularies"]),
        "## Left out",
        _list(f"{n} x {reason}" for reason, n in card["left_out"].items()) or "Nothing.",
        "## Contradictions",
        _list(
            f"{split}: {found['prompts']} prompts with several answers ({found['rows']} rows, kept)"
            for split, found in card["contradictions"].items()
        ),
        "## Licences of the sources",
        _list(f"{source}: {licence}" for source, licence in card["licences"].items()),
        "## Known limits",
        _list(card["limits"]),
    ]
    return "\n\n".join(lines) + "\n"


def _confined(options: Mapping[str, Any]) -> str:
    """Returns to which half of the patients and to which model's rows a set is confined, in words."""
    words = ""
    if (half := options.get("patients", "all")) != "all":
        words += f" It is of the {half.replace('-', ' ')} of the patients (by hash) alone."
    if (role := options.get("role", "all")) != "all":
        words += f" It holds the rows that teach the {role}."
    return words


def _run(run: Run) -> dict[str, Any]:
    config = run.config
    return {
        "name": run.name,
        "config_hash": run.config_hash,
        "strategy": config.get("strategy", ""),
        "value": config.get("settings", {}).get("value", ""),
        "generator": config.get("generator", ""),
        "peer": config.get("peer") or "the generator's weights",
        "seed": config.get("seed", 0),
        "split": config.get("split") or "all",
    }


def _vocabularies(vocabularies: Mapping[str, Vocabulary]) -> list[dict[str, Any]]:
    found = [
        {
            "name": v.name,
            "version": v.version,
            "file": f"{VOCABULARIES}/{v.name}.yaml",
            "sha256": v.sha256,
            "entries": len(v.entries),
        }
        for v in vocabularies.values()
    ]
    return sorted(found, key=lambda v: str(v["name"]))


def _figures(rows: Sequence[Row], kind: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(line_of(row).encode())
    figures: dict[str, Any] = {
        "rows": len(rows),
        "cases": len({row["case_id"] for row in rows}),
        "patients": len({row["patient_id"] for row in rows}),
        "longest": max(length(row, kind) for row in rows),
        "sha256": digest.hexdigest(),
        "by": {name: _count(rows, name) for name in COUNTED[kind]},
        "steps": {
            step: _of_step([row for row in rows if row["step"] == step]) for step in sorted(_values(rows, "step"))
        },
    }
    if kind == SFT:
        figures["cold_start_share"] = _cold_share(rows)
        figures["cold_start_share_by_run"] = {
            run: _cold_share([row for row in rows if row["run"] == run]) for run in sorted(_values(rows, "run"))
        }
    return figures


def _of_step(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the figures of one step; its classes are counted by case, so that long searches weigh no more."""
    found: dict[str, Any] = {
        "rows": len(rows),
        "cases": len(_values(rows, "case_id")),
        "rows_by_label_source": _count(rows, "label_source"),
    }
    if "answer" in rows[0]:
        pairs = sorted({(row["answer"], row["case_id"]) for row in rows})
        found["cases_by_answer"] = dict(sorted(Counter(answer for answer, _ in pairs).items()))
    if "cold_start" in rows[0]:
        found["cold_start_share"] = _cold_share(rows)
    return found


def _values(rows: Sequence[Row], name: str) -> set[str]:
    return {row[name] for row in rows}


def _count(rows: Sequence[Row], name: str) -> dict[str, int]:
    words = {True: "yes", False: "no"}
    return dict(sorted(Counter(str(words.get(row[name], row[name])) for row in rows).items()))


def _cold_share(rows: Sequence[Row]) -> float | None:
    """Returns the share of case-steps whose generator's rows are a cold start; None where none has any."""
    cold = {(r["step"], r["case_id"], r["occurrence"], r["run"]): r["cold_start"] for r in rows if r["role"] != "peer"}
    return sum(cold.values()) / len(cold) if cold else None


def _table(figures: Mapping[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for name in ("rows", "cases", "patients"):
        lines.append(f"| {name} | {figures[name]} |")
    lines.append(f"| longest row | {figures['longest']} characters |")
    lines.append(f"| sha256 | `{figures['sha256'][:16]}...` |")
    if figures.get("cold_start_share") is not None:
        shares = ", ".join(
            f"{run} {share:.0%}" for run, share in figures["cold_start_share_by_run"].items() if share is not None
        )
        lines.append(f"| cold starts, of case-steps | {figures['cold_start_share']:.0%} ({shares}) |")
    for name, counts in figures["by"].items():
        words = ", ".join(f"{key} {n}" for key, n in counts.items())
        lines.append(f"| rows by {name.replace('_', ' ')} | {words} |")
    for step, found in figures["steps"].items():
        words = ", ".join(f"{key} {n}" for key, n in found.get("cases_by_answer", {}).items()) or "classes not used"
        words = words.replace("|", "\\|")  # codes of eICU are paths
        lines.append(f"| cases of {step} | {found['cases']} ({found['rows']} rows): {words} |")
    return "\n".join(lines)


def _list(items: Any) -> str:
    return "\n".join(f"- {item}" for item in items)
