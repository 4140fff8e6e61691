"""Which bedside items of MIMIC-III become findings: those of CareVue (until 2008) and of MetaVision (from 2008).

MetaVision's items are those of MIMIC-IV. CareVue has other numbers. Of CareVue's examination the list names a word that
the label in D_ITEMS must hold: a number that another release uses for something else is not shown.

Source: MIMIC-III 1.4, D_ITEMS; numbers of vital signs and GCS as in mimic-code (vitals-first-day, gcs-first-day).
"""

from __future__ import annotations

from clinical_data.case import FindingKind
from clinical_data.sources import mimic_iv_items

# itemid -> unit (UCUM; empty for a text)
CAREVUE_VITALS: dict[int, str] = {
    211: "/min", 212: "",  # heart rate, rhythm
    51: "mm[Hg]", 8368: "mm[Hg]", 52: "mm[Hg]",  # arterial line
    6701: "mm[Hg]", 8555: "mm[Hg]", 6702: "mm[Hg]",  # arterial line, second
    455: "mm[Hg]", 8441: "mm[Hg]", 456: "mm[Hg]",  # cuff
    442: "mm[Hg]", 8440: "mm[Hg]", 443: "mm[Hg]",  # by hand
    618: "/min", 615: "/min",  # breathing
    646: "%",  # pulse oximetry
    676: "Cel", 677: "Cel", 678: "[degF]", 679: "[degF]",
    3420: "%",  # inspired oxygen
    762: "kg", 763: "kg", 920: "[in_i]",  # weight, height
}  # fmt: skip

# itemid -> a word of its label
CAREVUE_EXAMINATION: dict[int, str] = {
    198: "gcs", 184: "eye", 454: "motor", 723: "verbal",
    432: "conscious", 479: "orientation",
    115: "capillary", 3348: "capillary",
    425: "lung sounds", 428: "lung sounds", 593: "lung sounds", 599: "lung sounds",
    80: "bowel", 8: "abdom",
}  # fmt: skip

CHARTED = mimic_iv_items.CHARTED | frozenset((*CAREVUE_VITALS, *CAREVUE_EXAMINATION))


def charted_kind(item: int, label: str) -> FindingKind | None:
    """Returns the kind of finding that a CHARTEVENTS item is; None for one that is not shown.

    Args:
        item: number of D_ITEMS.
        label: its label there; may be empty.
    """
    if item in CAREVUE_VITALS:
        return FindingKind.VITAL
    if item in CAREVUE_EXAMINATION:
        return FindingKind.EXAMINATION if CAREVUE_EXAMINATION[item] in label.lower() else None
    return mimic_iv_items.charted_kind(item) if item in mimic_iv_items.CHARTED else None


def unit_of(item: int) -> str:
    """Returns the unit of a vital sign; empty for a text and for what is no vital sign."""
    return CAREVUE_VITALS.get(item, mimic_iv_items.VITALS.get(item, ""))
