"""The doors: gRPC servicers in plain processes that are Ray drivers."""
