"""Recordings from elsewhere: parsers of file formats, each an iterator of readings, and their way into Waybill over gRPC."""

from cluster.importers.base import Bad, Item, Parser, Reading, Remark, RowError, Skipped, UnusableFile, zone
from cluster.importers.chirpstack import ChirpStack, parse_mapping
from cluster.importers.fridge_tag import FridgeTag
from cluster.importers.gather import Account, Gathered, gather
from cluster.importers.gps_csv import GpsCsv
from cluster.importers.ibutton import IButton

__all__ = [
    "Account",
    "Bad",
    "ChirpStack",
    "FridgeTag",
    "Gathered",
    "GpsCsv",
    "IButton",
    "Item",
    "Parser",
    "Reading",
    "Remark",
    "RowError",
    "Skipped",
    "UnusableFile",
    "gather",
    "parse_mapping",
    "zone",
]
