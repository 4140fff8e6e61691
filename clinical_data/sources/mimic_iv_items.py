"""Which items of MIMIC-IV's bedside tables become findings, as which kind, and in which unit.

A list per table, by item number of d_items: what is not listed is not read (chartevents) or gives no finding. Left out
are alarms and their limits, care plans, scores that later findings went into (APACHE, SOFA), code status, and the
rubrics of procedure notes.

Source: MIMIC-IV 2.2, d_items.
"""

from __future__ import annotations

from clinical_data.case import FindingKind

# itemid -> unit (UCUM; empty for a text)
VITALS: dict[int, str] = {
    220045: "/min",  # heart rate
    220048: "",  # heart rhythm
    220050: "mm[Hg]", 220051: "mm[Hg]", 220052: "mm[Hg]",  # arterial line
    220179: "mm[Hg]", 220180: "mm[Hg]", 220181: "mm[Hg]",  # cuff
    225309: "mm[Hg]", 225310: "mm[Hg]", 225312: "mm[Hg]",  # arterial line, second
    220210: "/min", 224690: "/min",  # breathing
    220277: "%",  # pulse oximetry
    223761: "[degF]", 223762: "Cel",
    223834: "L/min", 223835: "%", 226732: "",  # oxygen: flow, fraction, device
    223849: "", 220339: "cm[H2O]",  # ventilator: mode, PEEP
    223791: "",  # level of pain
    226512: "kg", 224639: "kg", 226531: "[lb_av]", 226730: "cm", 226707: "[in_i]",
}  # fmt: skip

EXAMINATION = frozenset(
    (
        220739, 223900, 223901,  # Glasgow Coma Scale
        226104, 223898, 229381, 228394, 228395, 228396, 223910,  # consciousness, orientation, commands
        223902, 228414, 228399, 227988, 228401, 223923, 228413,  # speech, facial droop, drift, seizure
        223907, 224733, 227121, 227288,  # pupils
        223917, 223918, 223919, 223920, 228409, 228410, 228411, 228412,  # strength
        224758, 224759, 223924, 224762,  # sensation
        223985, 223990, 229322, 229323, 223991, 223992,  # breathing, cough
        223986, 223987, 223988, 223989,  # lung sounds
        224389, 223951, 224308,  # heart sounds, capillary refill
        223934, 223935, 223936, 223943, 223947, 223948,  # pulses
        224003, 224004, 224011, 224794, 224013, 224006,  # abdomen, bowel sounds, stool, vomit
        224016, 224876,  # urine
        224026, 224027, 224028, 224860,  # skin
    )
)  # fmt: skip

# The nursing admission history.
ADMISSION_HISTORY: dict[int, FindingKind] = {
    225059: FindingKind.HISTORY,  # past medical history
    225811: FindingKind.HISTORY,  # the same, heart and vessels
    225106: FindingKind.SOCIAL,  # alcohol
    225108: FindingKind.SOCIAL,  # tobacco
    227687: FindingKind.SOCIAL,  # tobacco
    225110: FindingKind.SOCIAL,  # recreational drugs
}

CHARTED = frozenset((*VITALS, *EXAMINATION, *ADMISSION_HISTORY))

# procedureevents that are done and leave no result in the tables
IMAGING = frozenset(
    (
        221214, 229582,  # CT
        221216, 225459, 229581, 225457, 225460, 225461, 225463,  # X-ray
        221217, 228715, 221255, 225432,  # ultrasound, echocardiography
        223253, 225427, 221219, 225462, 225440, 225443,  # MRI, angiography, fluoroscopy, nuclear medicine
        225402, 221223, 229614, 229584,  # ECG, EEG, EMG
    )
)  # fmt: skip
CULTURES = frozenset((225401, 225437, 225444, 225451, 225454, 225814, 225816, 225817, 225818, 225966, 225967))
EXAMINED = frozenset(
    (
        225399, 225400, 225430, 225434, 225439, 225442, 225445, 225449, 225479,  # puncture, scopes, catheter, biopsy
        227550, 229576, 229298, 229380,  # ERCP, swallowing
    )
)  # fmt: skip
# Cannulas, talks with the family, transport and mishaps of nursing: no finding for the chart.
NOT_SHOWN = frozenset(
    (
        224274, 224275, 224276, 224277, 224566, 225205, 229468,
        228125, 228126, 228127, 228128, 228129, 228130, 228136, 228228,
        225406, 225474, 229575, 229579,
    )
)  # fmt: skip

IRRIGANT = frozenset((227487, 227488, 227489, 228103))  # outputevents that are no output of the patient


def charted_kind(item: int) -> FindingKind:
    """Returns the kind of finding that a chartevents item of `CHARTED` is."""
    if item in VITALS:
        return FindingKind.VITAL
    return ADMISSION_HISTORY.get(item, FindingKind.EXAMINATION)


def done_kind(item: int) -> FindingKind | None:
    """Returns the kind of a procedureevents item that leaves no result here; None for a treatment."""
    for kind, items in (
        (FindingKind.IMAGING, IMAGING),
        (FindingKind.MICROBIOLOGY, CULTURES),
        (FindingKind.PROCEDURE, EXAMINED),
    ):
        if item in items:
            return kind
    return None
