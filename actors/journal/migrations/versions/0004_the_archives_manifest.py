"""The archive's manifest, what the journal has given up for it, and replays as long-running operations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "archive_part",
        sa.Column("part_id", sa.String(), nullable=False),
        sa.Column("location", sa.String(), nullable=False),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("made_us", sa.BigInteger(), nullable=False),
        sa.Column("carriers", sa.Integer(), nullable=False),
        sa.Column("readings", sa.BigInteger(), nullable=False),
        sa.Column("software", sa.String(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("part_id", name=op.f("pk_archive_part")),
    )
    op.create_table(
        "archived_carrier",
        sa.Column("carrier", sa.String(), nullable=False),
        sa.Column("part_id", sa.String(), nullable=False),
        sa.Column("closed_us", sa.BigInteger(), nullable=False),
        sa.Column("archived_us", sa.BigInteger(), nullable=False),
        sa.Column("readings", sa.BigInteger(), nullable=False),
        sa.Column("last_event", sa.BigInteger(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("carrier", name=op.f("pk_archived_carrier")),
    )
    op.create_index(op.f("ix_archived_carrier_part_id"), "archived_carrier", ["part_id"], unique=False)
    op.create_table(
        "archived_custody",
        sa.Column("custody_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("part_id", sa.String(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("local_index", sa.Integer(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("first_row", sa.BigInteger(), nullable=False),
        sa.Column("readings", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("custody_id", name=op.f("pk_archived_custody")),
    )
    op.create_index(op.f("ix_archived_custody_part_id"), "archived_custody", ["part_id"], unique=False)
    op.create_index(op.f("ix_archived_custody_shard_local_index"), "archived_custody", ["shard", "local_index"], unique=False)
    op.create_table(
        "journal_retained",
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("scanned_sequence", sa.BigInteger(), nullable=False),
        sa.Column("dropped_sequence", sa.BigInteger(), nullable=False),
        sa.Column("dropped_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_journal_retained")),
    )
    op.create_table(
        "replay",
        sa.Column("replay_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("location", sa.String(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("parts_done", sa.Integer(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("finished_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("replay_id", name=op.f("pk_replay")),
    )
    op.create_index(op.f("ix_replay_created_us_replay_id"), "replay", ["created_us", "replay_id"], unique=False)


def downgrade() -> None:
    """What the journal dropped for the archive would be lost: there is no way back."""
    raise NotImplementedError("readings that are in the archive alone cannot be read by the version before")
