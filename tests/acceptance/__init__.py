"""What Waybill promises, as seen by a gRPC client; on SQLite and on PostgreSQL."""
