"""The figures: what `make bench` measures, checks and writes into docs/performance.md."""
