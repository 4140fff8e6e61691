import pytest

from search.actions import ActionKind as K
from search.actions import depth_of, legal_kinds

TABLE = [
    ((), {K.THINK, K.FINISH, K.ASK, K.REPHRASE, K.REQUEST}),
    ((K.REPHRASE,), {K.THINK, K.FINISH, K.ASK, K.REQUEST}),
    ((K.ASK,), {K.THINK, K.FINISH, K.ASK, K.REASK, K.REQUEST}),
    ((K.ASK, K.REASK), {K.THINK, K.FINISH, K.ASK, K.REQUEST}),
    ((K.THINK,), {K.THINK, K.FINISH, K.REQUEST}),
    ((K.REQUEST,), {K.THINK, K.FINISH, K.ASK, K.REQUEST}),
    ((K.ASK, K.REQUEST), {K.THINK, K.FINISH, K.ASK, K.REQUEST}),
    ((K.THINK, K.REQUEST, K.REQUEST), {K.THINK, K.FINISH, K.REQUEST}),
    ((K.FINISH,), set()),
]


@pytest.mark.parametrize(("path", "allowed"), TABLE)
def test_legality_is_the_table_of_the_design(path, allowed):
    assert set(legal_kinds(path)) == allowed


def test_requests_do_not_count_towards_depth():
    assert depth_of((K.THINK, K.REQUEST, K.REQUEST, K.FINISH)) == 2
