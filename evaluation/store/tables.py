"""Tables of runs, of what each step of each case gave, and of generations."""

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, Table, Text

from clinical_data.store.metadata import metadata

runs = Table(
    "runs",
    metadata,
    Column("run_id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created", Text, nullable=False),
    Column("pathway", Text, nullable=False),
    Column("config_json", Text, nullable=False),
    Column("config_hash", Text, nullable=False),
    Column("versions_json", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("finished", Text),
    Column("work_json", Text),
)

# `record_json` is the versioned record without truth; `calls` is zlib-compressed JSON lines of all model calls.
case_steps = Table(
    "case_steps",
    metadata,
    Column("run_id", Integer, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("case_id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("occurrence", Integer, primary_key=True, autoincrement=False),
    Column("source_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("record_json", Text, nullable=False),
    Column("truth_json", Text),
    Column("match_json", Text),
    Column("calls", LargeBinary),
    Column("created", Text, nullable=False),
)

# What models answered, for all runs together: `key` and `value` as in `search/generation_cache.py`; `last_used`: a day.
generations = Table(
    "generations",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("last_used", Text, nullable=False),
)
