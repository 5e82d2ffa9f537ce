"""The inside of the tag population: its columns, its ring of recent readings, identity, judging and judging again."""
