"""Entries of readings in format 2 (actors/rules/codec.py): the tables stay as they are.

Whoever knows only format 1 would take such entries for damaged ones; by this revision it refuses the database instead.
"""

from __future__ import annotations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Entries that are there stay in format 1, which is read."""


def downgrade() -> None:
    """Entries of format 2 cannot be read by the version before: there is no way back."""
    raise NotImplementedError("entries of format 2 cannot be read by the version before")
