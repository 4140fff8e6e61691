"""Rows that begin alike: each token of a trajectory once, each row still taught, in the likelihoods it had alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.supervision.fine_tune_trainers import IGNORED, sft_rows
from evaluation.supervision.row_nesting import Taught, nested
from search.models.local_weights import load_weights
from tests.search.tiny_llama import make_tiny


def row(prompt, completion):
    return {"prompt": tuple(prompt), "completion": tuple(completion)}


def test_turns_of_a_trajectory_are_spans_of_one_sequence():
    turns = [row([1, 2], [3]), row([1, 2, 3, 4], [5, 6]), row([1, 2, 3, 4, 5, 6, 7], [8])]
    other = row([1, 2], [4])
    assert nested([turns[1], other, turns[0], turns[2]]) == [
        Taught((1, 2, 4), ((2, 3),)),
        Taught((1, 2, 3, 4, 5, 6, 7, 8), ((2, 3), (4, 6), (7, 8))),
    ]


def test_what_is_there_twice_is_taught_twice():
    assert nested([row([1], [2]), row([1], [2])]) == [Taught((1, 2), ((1, 2),))] * 2
    longer = row([1, 2, 3], [4])
    assert sorted(nested([row([1], [2]), longer, row([1], [2])]), key=lambda s: len(s.ids)) == [
        Taught((1, 2), ((1, 2),)),
        Taught((1, 2, 3, 4), ((1, 2), (3, 4))),
    ]
    assert len(nested([row([1], [2, 3]), row([1, 2], [3])])) == 2  # a token cannot be taught twice in one pass


TOKENS = st.lists(st.integers(1, 2), min_size=1, max_size=4)


@given(st.lists(st.builds(row, TOKENS, TOKENS), max_size=8))
def test_no_row_is_lost_and_no_sequence_is_too_many(rows):
    sequences = nested(rows)
    taught = sorted((s.ids[:end], begin) for s in sequences for begin, end in s.spans)
    assert taught == sorted(((*r["prompt"], *r["completion"]), len(r["prompt"])) for r in rows)
    for sequence in sequences:
        assert sequence.spans[-1][1] == len(sequence.ids)
        assert all(a[1] <= b[0] for a, b in zip(sequence.spans, sequence.spans[1:], strict=False))


@pytest.mark.usefixtures("one_thread")
def test_the_loss_of_nested_rows_is_that_of_the_rows_alone(tmp_path):
    model = load_weights(str(make_tiny(tmp_path / "tiny")), "fp32", "sdpa", "cpu")[0].eval()
    rows = [row([5, 6], [7]), row([5, 6, 7, 8], [9, 10]), row([5, 6, 7, 8, 9, 10, 11], [12])]

    def total(sequences):
        found = 0.0
        for entry in sft_rows(sequences):
            logits = model(torch.tensor([entry["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(entry["labels"][1:])
            found += torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
        return found

    one = nested(rows)
    assert len(one) == 1
    assert total(one) == pytest.approx(sum(total(nested([r])) for r in rows), rel=1e-5)
