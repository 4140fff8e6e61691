"""What a replay would cost: measured case-steps times the case-steps to do. No model runs.

Measured are stored runs of the same database with the same strategy, settings and models, step by step; where there are
none, the figures bundled in `workflow/plan_figures.yaml`, which say where each comes from. Intervals: 95 %, bootstrap
over patients; they tell how sure the mean is, not how much a machine's speed varies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from sqlalchemy import Engine, select

from clinical_data.store.engine import reading
from evaluation.record import RunRecord
from evaluation.store.calls import unpack
from evaluation.store.run_store import Run, RunStore
from evaluation.store.tables import case_steps
from search.models.adapters import folder_of, is_adapter
from search.settings import SearchSettings
from workflow.config import PreparedRun
from workflow.planning import Counted

FIGURES = ("prefilled", "sampled", "requests", "seconds")
RESAMPLES = 2000
FEW_PATIENTS = 10  # with fewer an interval is too narrow
MOST_RECORDS = 400  # stored case-steps of one step that are read: the latest
GIB = 2**30
_ALIKE = ("strategy", "settings", "generator", "peer", "predecessors", "models", "batch_across_cases")
_ANY = "any step"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured case-step: its patient, and its figures in the order of `FIGURES`."""

    patient: str
    figures: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Basis:
    """What an estimate rests on.

    Attributes:
        kind: `stored runs`, `bundled figures` or `nothing`.
        text: in words, with its source and what was assumed.
        samples: step -> measured case-steps; those of `any step` serve where a step has none of its own.
        timed: whether their seconds tell of this run: not those of another machine or of answers from a cache.
    """

    kind: str
    text: str
    samples: Mapping[str, Sequence[Sample]]
    timed: bool = False
    factor: float = 1.0

    @property
    def patients(self) -> int:
        """How many patients the samples come from."""
        return len({one.patient for own in self.samples.values() for one in own})

    def of(self, step: str) -> Sequence[Sample]:
        """Returns the samples that stand for a step."""
        return self.samples.get(step) or self.samples.get(_ANY) or ()


def basis_of(engine: Engine, prepared: PreparedRun, config: Mapping[str, Any]) -> Basis:
    """Returns what is known of runs like this one: stored ones of the same kind, else bundled figures."""
    store = RunStore(engine)
    alike = [r for r in store.runs() if all(r.config.get(key) == config.get(key) for key in _ALIKE)]
    samples: dict[str, list[Sample]] = {}
    for run in alike:
        for step, sample in _measured(engine, run):
            samples.setdefault(step, []).append(sample)
    if samples:
        cached = any(r.work.get("cache_hits", 0) for r in alike)
        number = sum(len(own) for own in samples.values())
        text = f"measured: {number} case-steps of {', '.join(r.name for r in alike)} in this database"
        if set(prepared.plans) - set(samples):
            samples[_ANY] = [one for own in samples.values() for one in own]
            text += "; steps without any are taken as the others"
        if cached:
            text += "; part of them came from the cache, so that their seconds tell nothing"
        return Basis("stored runs", text, samples, timed=not cached)
    return _bundled(prepared, config)


def _measured(engine: Engine, run: Run) -> list[tuple[str, Sample]]:
    c = case_steps.c
    found = []
    for step in run.config.get("steps", ()):
        query = select(c.record_json, c.calls).where(c.run_id == run.run_id, c.step == step)
        query = (
            query.where(c.status.not_in(("not_applicable", "failed"))).order_by(c.created.desc()).limit(MOST_RECORDS)
        )
        with reading(engine) as connection:
            rows = connection.execute(query).all()
        for row in rows:
            record = RunRecord.model_validate_json(row.record_json)
            requests = sum(1 for _ in unpack(row.calls))
            tokens = record.tokens
            figures = (tokens.get("prefilled", 0), tokens.get("sampled", 0), requests, record.seconds)
            found.append((step, Sample(record.patient_id, figures)))
    return found


def _bundled_figures() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((files("workflow") / "plan_figures.yaml").read_text(encoding="utf-8"))
    return found


def _bundled(prepared: PreparedRun, config: Mapping[str, Any]) -> Basis:
    known = _bundled_figures()
    own = next((one for one in known["figures"] if one["strategy"] == prepared.strategy), None)
    if own is None:
        return Basis("nothing", f"no run of strategy {prepared.strategy} is stored, and no figure is bundled", {})
    samples = [Sample(one["case"], tuple(one[name] for name in FIGURES)) for one in own["case_steps"]]
    usual = SearchSettings().with_options(**own.get("settings", {}))
    rollouts = config["settings"]["rollouts"]
    factor = rollouts / usual.rollouts if own.get("by_rollouts") else 1.0
    words = f"bundled figures (version {known['version']}): {len(samples)} case-steps, {own['source']}"
    assumed = []
    if factor != 1:
        assumed.append(f"{rollouts} rollouts cost {factor:g} times {usual.rollouts}")
    if {**config["settings"], "rollouts": 0} != {**asdict(usual), "rollouts": 0}:
        assumed.append("other settings cost the same")
    if prepared.generator != "embedded" or prepared.peer not in (None, "embedded"):
        assumed.append("another model takes as many tokens as the embedded one")
    if assumed:
        words += f"; assumed: {'; '.join(assumed)}"
    return Basis("bundled figures", words, {_ANY: samples}, timed=prepared.generator == "embedded", factor=factor)


def project(counted: Counted, basis: Basis, speed: float | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Returns the totals of a run: `{figure: {"value", "low", "high"}}`, for `FIGURES`, `tokens` and `hours`.

    Args:
        counted: what is to be done.
        basis: what is known of a case-step.
        speed: tokens per second of a machine that one knows; None: as measured.
        seed: of the resamples.
    """
    names = [name for name, count in counted.steps.items() if count.applicable + count.perhaps]
    if not names or not all(basis.of(name) for name in names):
        return {}
    numbers = {name: _left(counted, name) for name in names}
    patients = sorted({one.patient for name in names for one in basis.of(name)})
    place = {patient: i for i, patient in enumerate(patients)}
    sums = np.zeros((len(patients), len(names), len(FIGURES)))
    counts = np.zeros((len(patients), len(names)))
    for k, name in enumerate(names):
        for one in basis.of(name):
            sums[place[one.patient], k] += one.figures
            counts[place[one.patient], k] += 1
    low_weights = np.array([numbers[name][0] for name in names], dtype=float)
    high_weights = np.array([numbers[name][1] for name in names], dtype=float)
    middle = (low_weights + high_weights) / 2
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=RESAMPLES)
    value = _totals(np.ones((1, len(patients))), sums, counts, middle, basis.factor, speed)[0]
    if len(patients) == 1:
        low = high = None
    else:
        bottom = _totals(drawn, sums, counts, low_weights, basis.factor, speed)
        top = _totals(drawn, sums, counts, high_weights, basis.factor, speed)
        low, high = np.nanpercentile(bottom, 2.5, axis=0), np.nanpercentile(top, 97.5, axis=0)
    shown = (*FIGURES[:3], "tokens", "seconds")
    known = basis.timed or speed is not None
    return {
        name: {
            "value": float(value[i]),
            "low": None if low is None else float(low[i]),
            "high": None if high is None else float(high[i]),
        }
        for i, name in enumerate(shown)
        if name != "seconds" or known
    }


def _left(counted: Counted, name: str) -> tuple[int, int]:
    """Returns the fewest and the most case-steps of a step that are still to be searched."""
    count = counted.steps[name]
    left = count.applicable - count.done
    return left, left + count.perhaps


def _totals(weights: Any, sums: Any, counts: Any, numbers: Any, factor: float, speed: float | None) -> Any:
    """Returns prefilled, sampled, requests, tokens and seconds per row of patients' weights."""
    below = np.tensordot(weights, counts, axes=1)
    means = np.tensordot(weights, sums, axes=1) / np.where(below > 0, below, np.nan)[..., None]
    total = factor * np.einsum("bsf,s->bf", means, numbers)
    tokens = total[:, 0] + total[:, 1]
    seconds = total[:, 3] if speed is None else tokens / speed
    return np.stack([total[:, 0], total[:, 1], total[:, 2], tokens, seconds], axis=1)


def memory_of(prepared: PreparedRun, workers: int) -> tuple[float, str]:
    """Returns the memory that a replay may need at most, in GiB, and what that is made of."""
    known = _bundled_figures()["memory"]
    each, parts = float(known["program_gib"]), [f"{known['program_gib']:g} program"]
    specs = dict.fromkeys(s for s in (prepared.generator, prepared.peer, prepared.value_model) if s)
    local = [s for s in specs if s.partition(":")[0] not in ("random", "scripted", "openai")]
    if local:
        each += float(known["torch_gib"])
        parts.append(f"{known['torch_gib']:g} torch")
    for spec in local:
        weights = _weights_gib(spec, float(known["embedded_gib"]))
        cache = float(prepared.models.get("cache_mb", known["cache_mb"])) / 1024
        each += (weights or 0.0) + cache
        size = "of unknown size" if weights is None else f"{weights:.1f}"
        parts.append(f"weights of {spec} {size}, at most {cache:.1f} for kept keys and values")
    words = f"GiB: {', '.join(parts)}" + (f"; for each of {workers} workers" if workers > 1 else "")
    return each * workers, f"{words}; {known['source']}"


def _weights_gib(spec: str, embedded: float) -> float | None:
    if spec == "embedded":
        return embedded
    folder = folder_of(spec)
    if not folder.is_dir():
        return None
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors")) / GIB
    return size + (embedded if is_adapter(folder) else 0.0)
