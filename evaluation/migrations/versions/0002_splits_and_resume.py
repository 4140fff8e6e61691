"""Splits in a table of their own, by scheme; imports that can be resumed."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0002_splits_and_resume"
down_revision = "0001_initial"
branch_labels = None
depends_on = None

SPLIT_IN = "split IN ('train', 'tuning', 'held-out')"
FK_IMPORT = "fk_cases_import_id_imports"


def upgrade() -> None:
    """Goes to this version."""
    splits = op.create_table(
        "patient_splits",
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.CheckConstraint(SPLIT_IN, name=op.f("ck_patient_splits_split")),
        sa.ForeignKeyConstraint(
            ["patient_id"],
            ["patients.patient_id"],
            name=op.f("fk_patient_splits_patient_id_patients"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("scheme", "patient_id", name=op.f("pk_patient_splits")),
    )
    op.execute("INSERT INTO patient_splits (scheme, patient_id, split) SELECT 'patient', patient_id, split FROM patients")
    if rows := _hospital_rows():
        op.bulk_insert(splits, rows)
    with op.batch_alter_table("patients") as batch:
        batch.drop_constraint(op.f("ck_patients_split"), type_="check")
        batch.drop_column("split")
    with op.batch_alter_table("imports") as batch:
        batch.add_column(sa.Column("fingerprint", sa.Text(), nullable=True))
        batch.add_column(sa.Column("progress_json", sa.Text(), nullable=True))
    with op.batch_alter_table("quarantine") as batch:
        batch.add_column(sa.Column("case_id", sa.Text(), nullable=True))
    with op.batch_alter_table("cases") as batch:
        batch.add_column(sa.Column("import_id", sa.Integer(), nullable=True))
        batch.create_foreign_key(op.f(FK_IMPORT), "imports", ["import_id"], ["import_id"], ondelete="SET NULL")
        batch.create_index(op.f("ix_cases_import_id"), ["import_id"])


def downgrade() -> None:
    """Goes back to the version before; what the hospital split and the import of a case were is lost."""
    with op.batch_alter_table("cases") as batch:
        batch.drop_index(op.f("ix_cases_import_id"))
        batch.drop_constraint(op.f(FK_IMPORT), type_="foreignkey")
        batch.drop_column("import_id")
    with op.batch_alter_table("quarantine") as batch:
        batch.drop_column("case_id")
    with op.batch_alter_table("imports") as batch:
        batch.drop_column("progress_json")
        batch.drop_column("fingerprint")
    with op.batch_alter_table("patients") as batch:
        batch.add_column(sa.Column("split", sa.Text(), nullable=True))
    op.execute(
        "UPDATE patients SET split = (SELECT s.split FROM patient_splits AS s"
        " WHERE s.scheme = 'patient' AND s.patient_id = patients.patient_id)"
    )
    with op.batch_alter_table("patients") as batch:
        batch.alter_column("split", existing_type=sa.Text(), nullable=False)
        batch.create_check_constraint(op.f("ck_patients_split"), SPLIT_IN)
    op.drop_table("patient_splits")


def _hospital_rows() -> list[dict[str, str]]:
    """Returns the splits of the scheme `hospital`: a patient follows the first case, by id, that names a hospital."""
    query = sa.text("SELECT patient_id, case_id, source, attributes_json FROM cases")
    first: dict[str, tuple[str, str, str]] = {}
    for patient_id, case_id, source, attributes in op.get_bind().execute(query):
        hospital = str(json.loads(attributes).get("hospital_id", ""))
        if hospital and (patient_id not in first or case_id < first[patient_id][0]):
            first[patient_id] = (case_id, source, hospital)
    return [
        {"scheme": "hospital", "patient_id": patient_id, "split": _split(f"split-hospital:{source}:{hospital}")}
        for patient_id, (_, source, hospital) in sorted(first.items())
    ]


def _split(text: str) -> str:
    """The rule of this version, written out: a migration must not change with the program."""
    share = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
    return "train" if share < 0.7 else "tuning" if share < 0.8 else "held-out"
