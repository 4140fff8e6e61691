"""Distinct tokens, by hand and against a trie that is really built."""

from hypothesis import given
from hypothesis import strategies as st

from evaluation.token_ratio import distinct_tokens


def draw(prompt, *completions, **more):
    return {"prompt_ids": prompt, "completion_ids": list(completions), "seed": 1, **more}


def scored(prompt, *choices, **more):
    return {"prompt_ids": prompt, "completion_ids": list(choices), "seed": None, **more}


def test_prompts_share_their_prefix():
    # 1 2 3 and its draw 4; then 1 2 | 5 and its draw 4.
    assert distinct_tokens([draw([1, 2, 3], [4]), draw([1, 2, 5], [4])]) == 3 + 1 + 1 + 1


def test_equal_draws_are_branches_of_their_own():
    assert distinct_tokens([draw([1, 2], [7, 8]), draw([1, 2], [7, 8])]) == 2 + 2 + 2
    assert distinct_tokens([draw([1, 2], [7, 8], [7, 8])]) == 2 + 2 + 2


def test_a_prompt_that_goes_on_from_a_draw_follows_it():
    # The cue 9 is all that the second prompt adds.
    assert distinct_tokens([draw([1, 2], [7, 8]), draw([1, 2, 7, 8, 9], [3])]) == 2 + 2 + 1 + 1
    # Of two draws it follows the one that leads furthest: 7 8, not 7.
    rows = [draw([1], [7]), draw([1], [7, 8]), draw([1, 7, 8, 9], [])]
    assert distinct_tokens(rows) == 1 + 1 + 2 + 1


def test_a_draw_is_new_even_where_an_earlier_prompt_reads_the_same():
    assert distinct_tokens([draw([1, 2, 3], [4]), draw([1], [2, 3])]) == 3 + 1 + 0 + 2


def test_choices_of_one_call_form_a_trie():
    # 5 6, 5 7 and 8 under 1 2: five nodes become four.
    assert distinct_tokens([scored([1, 2], [5, 6], [5, 7], [8])]) == 2 + 4
    # The same choices after the same prompt are the same nodes; after another prompt they are not.
    assert distinct_tokens([scored([1, 2], [5, 6])] * 2) == 2 + 2
    assert distinct_tokens([scored([1, 2], [5, 6]), scored([1, 3], [5, 6])]) == 2 + 2 + 1 + 2


def test_rows_without_seed_are_told_apart_by_number():
    rows = [{"prompt_ids": [1], "completion_ids": [[2]]}] * 2
    assert distinct_tokens(rows) == 1 + 1 + 1
    rows = [{"prompt_ids": [1], "completion_ids": [[2], [2, 3]]}] * 2
    assert distinct_tokens(rows) == 1 + 2


def test_models_and_case_steps_share_nothing():
    one = draw([1, 2], [3], model="a", case_id="x", step="s", occurrence=1)
    others = [{**one, "model": "b"}, {**one, "case_id": "y"}, {**one, "step": "t"}, {**one, "occurrence": 2}]
    assert distinct_tokens([one, *others]) == 5 * 3
    assert distinct_tokens([]) == 0


class Branching:
    """The trie of the definition, with equal branches side by side: children are a list of (token, node)."""

    def __init__(self):
        self.children = {0: []}

    def add(self, parent, token):
        node = len(self.children)
        self.children[node] = []
        self.children[parent].append((token, node))
        return node

    def walk(self, ids):
        """Adds what is missing of a sequence, from where the furthest walk ends; returns the end node."""
        reached, at = {0}, 0
        while at < len(ids):
            further = {n for r in reached for t, n in self.children[r] if t == ids[at]}
            if not further:
                break
            reached, at = further, at + 1
        node = min(reached)
        for token in ids[at:]:
            node = self.add(node, token)
        return node


ids = st.lists(st.integers(0, 2), max_size=4)


@given(st.lists(st.tuples(st.booleans(), ids, st.lists(ids, min_size=1, max_size=3)), max_size=12))
def test_count_equals_the_trie_that_is_really_built(calls):
    trie = Branching()
    rows = []
    for drawn, prompt, completions in calls:
        rows.append(draw(prompt, *completions) if drawn else scored(prompt, *completions))
        end = trie.walk(prompt)
        for completion in completions:
            if drawn:
                node = end
                for token in completion:
                    node = trie.add(node, token)
            else:
                trie.walk(prompt + completion)
    assert distinct_tokens(rows) == len(trie.children) - 1
