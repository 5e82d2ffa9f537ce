"""The journal: tables, commits, epochs, snapshots. The only SQL."""
