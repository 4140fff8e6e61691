"""Readings by clinicians: readers, their sessions, and a log that can only grow."""

import sqlalchemy as sa
from alembic import op

revision = "0004_readings"
down_revision = "0003_generations"
branch_labels = None
depends_on = None

_REFUSAL = "reading_log can only grow"


def upgrade() -> None:
    """Goes to this version."""
    op.create_table(
        "reviewers",
        sa.Column("reviewer_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("specialty", sa.Text(), nullable=False),
        sa.Column("years", sa.Integer(), nullable=False),
        sa.Column("adjudicator", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("reviewer_id", name=op.f("pk_reviewers")),
        sa.UniqueConstraint("name", name=op.f("uq_reviewers_name")),
    )
    op.create_table(
        "review_sessions",
        sa.Column("id_hash", sa.Text(), nullable=False),
        sa.Column("reviewer_id", sa.Integer(), nullable=False),
        sa.Column("expires", sa.Integer(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reviewer_id"],
            ["reviewers.reviewer_id"],
            name=op.f("fk_review_sessions_reviewer_id_reviewers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id_hash", name=op.f("pk_review_sessions")),
    )
    op.create_index(op.f("ix_review_sessions_reviewer_id"), "review_sessions", ["reviewer_id"])
    op.create_table(
        "reading_log",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("time", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("occurrence", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload_json", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_reading_log")),
    )
    op.create_index(op.f("ix_reading_log_run_case_id"), "reading_log", ["run", "case_id"])
    op.create_index(op.f("ix_reading_log_run_reviewer"), "reading_log", ["run", "reviewer"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION reading_log_refuses() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER reading_log_rows BEFORE UPDATE OR DELETE ON reading_log "
            "FOR EACH ROW EXECUTE FUNCTION reading_log_refuses()"
        )
        op.execute(
            "CREATE TRIGGER reading_log_whole BEFORE TRUNCATE ON reading_log "
            "FOR EACH STATEMENT EXECUTE FUNCTION reading_log_refuses()"
        )
    else:
        for deed in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER reading_log_{deed.lower()} BEFORE {deed} ON reading_log "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
        op.execute(  # REPLACE removes a row without asking the trigger for DELETE
            "CREATE TRIGGER reading_log_insert BEFORE INSERT ON reading_log "
            "WHEN EXISTS (SELECT 1 FROM reading_log WHERE seq >= NEW.seq) "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        )


def downgrade() -> None:
    """Goes back to the version before; all readings are lost."""
    op.drop_table("reading_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION reading_log_refuses()")
    op.drop_table("review_sessions")
    op.drop_table("reviewers")
