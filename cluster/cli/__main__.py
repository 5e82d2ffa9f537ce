"""`python -m cluster.cli` is the same as `waybill`."""

from cluster.cli import main

main()
