"""A seeded, physically plausible fleet of tags and the client that plays it into a running Waybill."""

from cluster.simulate.faults import Faults
from cluster.simulate.fleet import Fleet, Slice, Truth

__all__ = ["Faults", "Fleet", "Slice", "Truth"]
