"""Tables of the case store. Truth lives in tables of its own, which `CaseReader` never touches."""

from sqlalchemy import CheckConstraint, Column, Float, ForeignKey, ForeignKeyConstraint, Index, Integer, Table, Text
from sqlalchemy import UniqueConstraint as Unique

from clinical_data.splits import SPLITS
from clinical_data.store.metadata import metadata

_SPLIT_LIST = ", ".join(f"'{s}'" for s in SPLITS)

patients = Table(
    "patients",
    metadata,
    Column("patient_id", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("sex", Text, nullable=False),
    Unique("source", "source_id"),
)

# The key makes it impossible that a person is in two splits of a scheme. A patient without a hospital has no row in the
# scheme `hospital`.
patient_splits = Table(
    "patient_splits",
    metadata,
    Column("scheme", Text, primary_key=True),
    Column("patient_id", Text, ForeignKey("patients.patient_id", ondelete="CASCADE"), primary_key=True),
    Column("split", Text, nullable=False),
    CheckConstraint(f"split IN ({_SPLIT_LIST})", name="split"),
)

# `import_id`: the import that last wrote the case, or found it unchanged.
cases = Table(
    "cases",
    metadata,
    Column("case_id", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("patient_id", Text, ForeignKey("patients.patient_id"), nullable=False, index=True),
    Column("age", Integer),
    Column("encounters_json", Text, nullable=False),
    Column("anchors_json", Text, nullable=False),
    Column("context_json", Text, nullable=False),
    Column("attributes_json", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("import_id", Integer, ForeignKey("imports.import_id", ondelete="SET NULL"), index=True),
    Unique("source", "source_id"),
)

# A number is in value_number, a text in value_text. Both are set for a number that a float column would alter (-0.0, an
# integer): value_text is then its JSON form. `position` keeps the order of the case.
findings = Table(
    "findings",
    metadata,
    Column("case_id", Text, ForeignKey("cases.case_id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("finding_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("display", Text, nullable=False),
    Column("version", Text),
    Column("value_number", Float(53)),
    Column("value_text", Text),
    Column("unit", Text, nullable=False),
    Column("low", Float(53)),
    Column("high", Float(53)),
    Column("flag", Text, nullable=False),
    Column("charted", Integer, nullable=False),
    Column("available", Integer, nullable=False),
    Column("pending_from", Integer),
    Column("result_in_source", Integer, nullable=False),
    Column("note", Text, nullable=False),
    CheckConstraint("available >= charted", name="available"),
)

# One row per step: either it has labels, or a reason why it has none.
ground_truth = Table(
    "ground_truth",
    metadata,
    Column("case_id", Text, ForeignKey("cases.case_id", ondelete="CASCADE"), primary_key=True),
    Column("step", Text, primary_key=True, index=True),
    Column("absent_reason", Text),
    Column("content_hash", Text, nullable=False),
)

ground_truth_labels = Table(
    "ground_truth_labels",
    metadata,
    Column("case_id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("system", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("display", Text, nullable=False),
    Column("version", Text),
    Column("strength", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("entered", Integer),
    Column("source_row", Text, nullable=False),
    ForeignKeyConstraint(["case_id", "step"], ["ground_truth.case_id", "ground_truth.step"], ondelete="CASCADE"),
)

# `fingerprint` tells what is imported and how; `progress_json` holds what an unfinished import counted so far.
imports = Table(
    "imports",
    metadata,
    Column("import_id", Integer, primary_key=True),
    Column("source", Text, nullable=False),
    Column("path_name", Text, nullable=False),
    Column("started", Text, nullable=False),
    Column("finished", Text),
    Column("counts_json", Text),
    Column("fingerprint", Text),
    Column("progress_json", Text),
)

# `case_id` is set for trouble within a case that is stored all the same.
quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_id", Integer, primary_key=True),
    Column("import_id", Integer, ForeignKey("imports.import_id", ondelete="CASCADE"), nullable=False),
    Column("file", Text, nullable=False),
    Column("line", Integer),
    Column("reason", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("case_id", Text),
    Index(None, "import_id"),
)
