"""The contract of Waybill's gRPC API and its generated stubs."""
