"""Entries of readings in format 3 (actors/rules/codec.py), pages in format 2 (actors/journal/pages.py): the tables stay as they are.

Whoever knows only the formats before would take these for damaged ones; by this revision it refuses the database instead.
"""

from __future__ import annotations

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is there stays in its format, which is read."""


def downgrade() -> None:
    """Entries of format 3 cannot be read by the version before: there is no way back."""
    raise NotImplementedError("entries of format 3 cannot be read by the version before")
