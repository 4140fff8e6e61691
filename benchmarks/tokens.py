"""How many token positions a search computes for each distinct one (search.md, "Speed: where it goes")."""

import time

from clinical_data.demo import bundle_folder
from clinical_data.sources import ImportLog
from clinical_data.sources.fhir import FhirSource
from evaluation.token_ratio import distinct_tokens
from search.models.registry import load_model
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import run_search
from workflow.config import ReplayOptions, make_config, prepare
from workflow.step import clock_of, problem_of

CASES = ("ward-0001", "ward-0008")
STEP = "admission_diagnosis"
SEED = 0


def bundled_problems(names=CASES, step=STEP):
    """Returns the question of one step for some bundled cases, read like anyone's FHIR."""
    plan = prepare(make_config(ReplayOptions(steps=(step,)))).plans[step]
    problems = {}
    for labelled in FhirSource().read(bundle_folder(), ImportLog(_refuse)):
        case = labelled.case
        if case.source_id in names:
            problems[case.source_id] = problem_of(case, plan, clock_of(case, plan.step))
    if missing := sorted(set(names) - set(problems)):
        raise RuntimeError(f"no bundled case {missing[0]}")
    return [problems[name] for name in names]


def _refuse(trouble):
    raise RuntimeError(f"a bundled case does not import: {trouble.file}: {trouble.reason}")


def rows(calls, role, scored=True):
    """Returns the calls of one role as `wardstar prompts --tokens` exports them; scored answers left out on demand."""
    return [
        {"prompt_ids": c.prompt_ids, "completion_ids": c.completion_ids if scored or c.seed is not None else ()}
        | {"seed": c.seed}
        for c in calls
        if c.role == role
    ]


def measure(settings=None, names=CASES):
    """Searches two bundled cases with the embedded model in both roles, each role with weights of its own.

    Returns:
        `tokens_computed_over_distinct` (the worse of generator and peer over all cases): below 1 is possible, since
        the last token of a sample or a scored answer need not go through the model. `..._prompts_and_draws` is the
        strict reading, which gives no credit for the answers that an exact vote scores. Then speed, and tokens per
        verified conclusion.
    """
    settings = settings or SearchSettings()
    models = Models(load_model("embedded"), load_model("embedded"))
    computed, distinct, strict = {"generator": 0, "peer": 0}, {"generator": 0, "peer": 0}, {"generator": 0, "peer": 0}
    verified = sampled = rollouts = 0
    began = time.perf_counter()
    for problem in bundled_problems(names):
        before = {"generator": models.generator.work.computed, "peer": models.peer.work.computed}
        result = run_search("rstar", problem, models, settings, SEED)
        for role, model in (("generator", models.generator), ("peer", models.peer)):
            computed[role] += model.work.computed - before[role]
            distinct[role] += distinct_tokens(rows(result.calls, role))
            strict[role] += distinct_tokens(rows(result.calls, role, scored=False))
            model.release()
        verified += result.status.value == "verified"
        sampled += result.tokens.sampled
        rollouts += result.rollouts
    seconds = time.perf_counter() - began
    ratios = {role: computed[role] / distinct[role] for role in computed if distinct[role]}
    return {
        "tokens_computed_over_distinct": round(max(ratios.values()), 4),
        "tokens_computed_over_distinct_generator": round(ratios["generator"], 4),
        "tokens_computed_over_distinct_peer": round(ratios.get("peer", 0.0), 4),
        "tokens_computed_over_distinct_prompts_and_draws": round(max(computed[r] / strict[r] for r in ratios), 4),
        "tokens_computed": sum(computed.values()),
        "tokens_per_verified_conclusion": round(sum(computed.values()) / verified) if verified else None,
        "embedded_sampled_tokens_per_second": round(sampled / seconds, 1),
        "embedded_rollouts": rollouts,
        "embedded_seconds": round(seconds, 1),
    }
