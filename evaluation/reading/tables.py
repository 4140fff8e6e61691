"""Tables of clinicians' readings: who reads, who is logged in, and the append-only log of everything a reader did."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, Text

from clinical_data.store.metadata import metadata

reviewers = Table(
    "reviewers",
    metadata,
    Column("reviewer_id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("specialty", Text, nullable=False),
    Column("years", Integer, nullable=False),
    Column("adjudicator", Boolean, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("token_hash", Text, nullable=False),
    Column("created", Text, nullable=False),
)

# `id_hash`: sha256 of the id in the cookie; times are seconds since 1970, UTC.
review_sessions = Table(
    "review_sessions",
    metadata,
    Column("id_hash", Text, primary_key=True),
    Column("reviewer_id", Integer, ForeignKey("reviewers.reviewer_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("expires", Integer, nullable=False),
    Column("seen", Integer, nullable=False),
)

# One chain per database (`evaluation.reading.audit`). A trigger refuses to change or remove a row. Names, no keys of
# other tables: what was done stays, whatever becomes of run and reader.
reading_log = Table(
    "reading_log",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("time", Text, nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("case_id", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("occurrence", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload_json", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index(None, "run", "case_id"),
    Index(None, "run", "reviewer"),
)
