"""Replay: the archive's journeys judged again, as recorded, under other rules, in the order of arrival, or into another system."""
