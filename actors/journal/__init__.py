"""First floor: the journal. The only SQL of Waybill: tables, commits, the committer, fences, snapshots, history, queries."""
