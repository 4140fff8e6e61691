"""Generations of models, so that a repeated run makes no call to one."""

import sqlalchemy as sa
from alembic import op

revision = "0003_generations"
down_revision = "0002_splits_and_resume"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes to this version."""
    op.create_table(
        "generations",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("last_used", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_generations")),
    )


def downgrade() -> None:
    """Goes back to the version before; the generations are lost, which costs time and no result."""
    op.drop_table("generations")
