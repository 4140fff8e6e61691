"""The figures of agreement as rows of tables, and why some of them are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.formatting import metric_text
from evaluation.reading.coefficients import QUADRATIC

BIAS_WORDS = {
    "accuracy_before": "own answer right before the model's was seen",
    "accuracy_after": "own answer right after it",
    "accuracy_change": "difference, after minus before",
    "accuracy_model": "model's answer right",
    "moved_to_wrong_model": "of own answers that differed from a wrong model: moved to it",
    "moved_to_right_model": "of own answers that differed from a right model: moved to it",
    "commission": "of right own answers beside a wrong model: wrong afterwards",
    "rescue": "of wrong own answers beside a right model: right afterwards",
    "accepted_wrong_model": "wrong answers of the model that were accepted",
    "accepted_right_model": "right answers of the model that were accepted",
}


def agreement_rows(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns one row per step and question: n, and each coefficient with its interval.

    Levels of an answer that have the same figures share a row. Cohen's kappa is shown where two readers read the
    overlap; of more, `--json` has every pair. Krippendorff's alpha is the ordinal one where the answers have an order.
    Coefficients that no row has are left out.
    """
    rows: list[dict[str, str]] = []
    before: tuple[str, str, Any] = ("", "", None)
    for step, of_step in result["steps"].items():
        for question, figures in of_step["figures"].items():
            subject, _, level = question.partition(", ")
            if level and before == (step, subject, figures):
                rows[-1]["question"] += f", {level}"
                continue
            before = (step, subject, figures)
            rows.append(
                {
                    "step": step.replace("_", " "),
                    "question": question,
                    "n": str(figures["n"]),
                    "same answer": metric_text(figures["raw"]),
                    "Cohen": _of_two(figures["cohen"]),
                    "Cohen, quadratic": _of_two(figures.get(f"cohen_{QUADRATIC}", {})),
                    "Fleiss": _text(figures.get("fleiss")),
                    "Krippendorff": _text(figures.get("alpha_ordinal", figures["alpha_nominal"])),
                }
            )
    empty = {name for name in rows[0] if all(row[name] == "-" for row in rows)} if rows else set()
    return [{name: text for name, text in row.items() if name not in empty} for row in rows]


def bias_rows(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns one row per figure of automation bias and accuracy."""
    return [
        {"readings with a recorded label": BIAS_WORDS[name], "share": metric_text(metric), "n": str(metric["n"])}
        for name, metric in result["bias"].items()
    ]


def agreement_remarks(result: Mapping[str, Any]) -> list[str]:
    """Returns what was counted, and why figures are missing or without interval: one line per step and reason."""
    lines = [
        f"{result['readings']} readings of {result['case_steps']} case-steps by {len(result['readers'])} readers; "
        f"{result['overlap']} case-steps by two and more; adjudications left out: {result['adjudications']}"
    ]
    if result["unknown"]:
        lines.append(f"readings of case-steps that the run does not hold, or took again since: {result['unknown']}")
    if not result["overlap"]:
        lines.append("no case-step was read by two readers: no agreement to tell")
    for step, of_step in result["steps"].items():
        reasons: dict[str, list[str]] = {}
        for question, figures in of_step["figures"].items():
            for name, metric in _metrics(figures):
                if reason := metric.get("reason"):
                    reasons.setdefault(reason, []).append(f"{question}: {name}")
        lines += [f"{step.replace('_', ' ')}: {reason}: {'; '.join(where)}" for reason, where in reasons.items()]
    for name, metric in result["bias"].items():
        if reason := metric.get("reason"):
            lines.append(f"{BIAS_WORDS[name]}: {reason}")
    return lines


def _metrics(figures: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the coefficients of a question by name; of pairs each with its readers."""
    for name, value in figures.items():
        if name.startswith("cohen"):
            yield from ((f"{name} {pair}", metric) for pair, metric in value.items())
        elif name != "n":
            yield name, value


def _of_two(pairs: Mapping[str, Mapping[str, Any]]) -> str:
    return _text(next(iter(pairs.values()))) if len(pairs) == 1 else "-"


def _text(metric: Mapping[str, Any] | None) -> str:
    return "-" if metric is None else metric_text(metric)
