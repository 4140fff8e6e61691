"""Compares free text with the names of catalogue items: what is said, whatever its spelling, number or politeness.

Two texts are the same when the same words remain, in any order, after punctuation, filler words, plural endings,
British spelling and the abbreviations of the ward are taken away. There is no guessing: one word too many, and nothing
is recognised.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_FILLERS = frozenset(
    """
    a an the of for in on at to by with and or is are was be been any some all his her their this that my our its
    please kindly could would can should may might must will shall i we you me let lets like want need wish think
    order ordering request requesting check checking get getting obtain obtaining send sending measure measuring perform
    performing do doing run running repeat repeated ask asking see show take taking draw drawing again also next first
    now stat urgent urgently asap today latest recent current new full set patient patients pt value result reading
    what which how contrast without level serum plasma test testing study scan measurement value determination
    """.split()  # noqa: SIM905
)
_SAME = {
    "abd": "abdomen", "abdominal": "abdomen", "brain": "head", "cranial": "head", "cardiac": "heart",
    "pulmonary": "lung", "renal": "kidney", "hepatic": "liver", "exam": "examination", "hx": "history",
    "echo": "echocardiogram", "echocardiography": "echocardiogram", "ekg": "ecg", "electrocardiography": "ecg",
    "electrocardiogram": "ecg", "mr": "mri", "sonography": "ultrasound", "sonogram": "ultrasound",
    "ultrasonography": "ultrasound", "usg": "ultrasound", "us": "ultrasound", "meds": "medication",
    "medicine": "medication", "neuro": "neurologic", "neurological": "neurologic", "resp": "respiratory",
    "prior": "earlier", "previous": "earlier", "vitamine": "vitamin", "radiography": "radiograph",
    "xr": "xray", "gase": "gas",
}  # fmt: skip
_HAN = "\u4e00-\u9fff"  # Chinese is written without spaces: what stands together is one word
_BRITISH = (
    ("haem", "hem"), ("aemia", "emia"), ("oedema", "edema"), ("oesoph", "esoph"), ("tumour", "tumor"),
    ("leuco", "leuko"), ("sulph", "sulf"), ("faec", "fec"), ("anaes", "anes"), ("gynae", "gyne"), ("rrhoea", "rrhea"),
    ("ionised", "ionized"), ("coeliac", "celiac"), ("foetal", "fetal"), ("colour", "color"),
)  # fmt: skip


@lru_cache(maxsize=65536)
def name_key(text: str) -> frozenset[str]:
    """Returns the words of a name by which it is compared; empty for a text without any."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text).lower() if c.isascii() or _is_han(c))
    plain = re.sub(r"\bx[\s_-]*rays?\b", "xray", plain)
    words = [_word(word) for word in re.findall(rf"[a-z0-9]+|[{_HAN}]+", plain)]
    return frozenset(w for w in words if w not in _FILLERS) or frozenset(words)


@lru_cache(maxsize=65536)
def words_of(text: str) -> frozenset[str]:
    """Returns the words of a source's own name in lower case (`Blood_Tests/Hemoglobin`: blood, tests, hemoglobin)."""
    return frozenset(re.findall(r"[a-z0-9]+", text.lower()))


def says(text: str, phrase: tuple[str, ...]) -> bool:
    """Says whether a source's own name holds every word of a phrase; a word that ends in `*` may go on."""
    words = words_of(text)
    return all(any(w.startswith(part[:-1]) for w in words) if part.endswith("*") else part in words for part in phrase)


def _is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def _word(word: str) -> str:
    for british, american in _BRITISH:
        word = word.replace(british, american)
    word = _SAME.get(word, word)
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return _SAME.get(word, word)
