"""Short words for people and small models: names without the scaffolding of code systems, units as they are written."""

from __future__ import annotations

import re
from functools import lru_cache

from clinical_data.case import Coding

# LOINC long common names carry property, specimen and method; a ward says the analyte.
_BRACKETS = re.compile(r"\s*\[[^\]]*\]")
_SPECIMEN = re.compile(
    r"\s+(?:in|of)\s+(?:(?:Serum|Plasma|Blood|Arterial|Venous|Capillary|Platelet poor plasma)"
    r"(?:\s+or\s+|\s+and\s+|\s+)?)+(?=\s|$)",
    re.IGNORECASE,
)
_METHOD = re.compile(r"\s+by\s+(?:[\w.-]+\s+){0,3}(?:method|count|oximetry|imaging|test strip|calculation)\b.*$", re.I)
_FORM = re.compile(r"\s+(?:narrative(?:\s*-\s*reported)?|study|total score|total)$", re.IGNORECASE)
_ASSAY = re.compile(r"\s+by\s+(?:Coagulation assay|Culture|NAA with probe detection|Microscopy.*)$", re.IGNORECASE)
_URINE = re.compile(r"\s+(?:in|of)\s+Urine(?:\s+sediment)?", re.IGNORECASE)
_FINDINGS = re.compile(r"^Physical findings of\s+", re.IGNORECASE)
_USUAL = {
    "1988-5": "CRP",
    "2019-8": "pCO2",
    "2028-9": "Total CO2",
    "2339-0": "Glucose",
    "2703-7": "pO2",
    "3016-3": "TSH",
    "3040-3": "Lipase",
    "4548-4": "HbA1c",
    "6690-2": "White cells",
    "8661-1": "Complaint",
    "9269-2": "GCS",
    "10157-6": "Family history",
    "10164-2": "History",
    "11331-6": "Alcohol",
    "11524-6": "ECG",
    "24627-2": "CT of the chest",
    "33762-6": "NT-proBNP",
    "72166-2": "Tobacco",
    "770-8": "Neutrophils",
    "736-9": "Lymphocytes",
}
_UNITS = {
    "mm[Hg]": "mmHg",
    "cm[H2O]": "cmH2O",
    "Cel": "°C",
    "[degF]": "°F",
    "mm Hg": "mmHg",
    "cm H2O": "cmH2O",
    "[pH]": "",
    "1": "",
    "m[IU]/L": "mIU/L",
    "[IU]/L": "IU/L",
    "u[IU]/mL": "uIU/mL",
    "[in_i]": "in",
    "[lb_av]": "lb",
    "10*3/uL": "10^3/uL",
    "10*6/uL": "10^6/uL",
    "10*9/L": "10^9/L",
    "10*12/L": "10^12/L",
}


@lru_cache(maxsize=65536)
def short_name(coding: Coding) -> str:
    """Returns what a clinician calls it: "Sodium" for "Sodium [Moles/volume] in Serum or Plasma".

    Names of other systems than LOINC stay as they are but for white space.
    """
    name = " ".join((coding.display or coding.code).split())
    if coding.system == "http://loinc.org" and coding.code in _USUAL:
        return _USUAL[coding.code]
    if coding.system != "http://loinc.org":
        return name
    short = _FINDINGS.sub("", _BRACKETS.sub("", name))
    for pattern in (_METHOD, _ASSAY, _SPECIMEN, _FORM):
        short = pattern.sub("", short).strip()
    if _URINE.search(short):
        short = f"Urine {_URINE.sub('', short)[:1].lower()}{_URINE.sub('', short)[1:]}"
    short = short.replace("Urea nitrogen", "BUN").replace("I.cardiac", "I").replace("T.cardiac", "T")
    return short or name


@lru_cache(maxsize=4096)
def unit_text(unit: str) -> str:
    """Returns a UCUM unit as it is written on a ward: `mmHg` for `mm[Hg]`; annotations in braces are left out."""
    text = _UNITS.get(unit.strip(), unit.strip())
    return re.sub(r"\{[^}]*\}", "", text).strip()
