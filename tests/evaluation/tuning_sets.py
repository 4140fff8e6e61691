"""Small training sets, and a model small enough to learn them by heart."""

import json
from itertools import pairwise

from search.models.language_model import ScoreRequest, Segment
from search.models.transformers import TransformersModel

ANSWERS = ("a cold", "burns", "cramp", "dizzy spells", "earache", "fever")
PROMPTS = tuple(f"a record.\n\npatient: number {c} {c}.\nanswer:" for c in "uvwxyz")
SFT = [{"prompt": p, "completion": f" {a}\n", "step": "one"} for p, a in zip(PROMPTS, ANSWERS, strict=True)]
SHUFFLED = [{"prompt": p, "completion": f" {a}\n"} for p, a in zip(PROMPTS, (*ANSWERS[1:], ANSWERS[0]), strict=True)]
PREFERENCE = [
    {"prompt": p, "chosen": f" {a}\n", "rejected": f" {b}\n"}
    for p, (a, b) in zip(PROMPTS, pairwise((*ANSWERS, ANSWERS[0])), strict=True)
]


def write_set(folder, train, tuning=(), card=None, *, times=1):
    """Writes a set; `times` repeats the rows to learn from, so that an epoch takes more steps."""
    train = [*train] * times
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("tuning", tuning)):
        if rows or name == "train":
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if card is not None:
        (folder / "card.json").write_text(json.dumps(card))
    return folder


def likelihoods(spec, rows=SFT, column="completion"):
    """Mean ln p per token of each row's completion after its prompt, as the search would score it."""
    model = TransformersModel.load(str(spec), dtype="fp32", threads=1)
    found = []
    for row in rows:
        head, end, rest = row["prompt"].partition("\n\n")
        case, cue = rest.rsplit("\n", 1)
        pieces = (Segment(head), Segment(end + case), Segment(f"\n{cue}"))
        (scores,) = model.score([ScoreRequest(pieces, (row[column],))])
        found.append(scores.mean_logprobs[0])
    return found
