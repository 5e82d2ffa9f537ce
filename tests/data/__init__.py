"""Real recordings through a running Waybill and `waybill import`, held against plain readings of the same files."""
