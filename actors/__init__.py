"""The virtual actors: tags, shipments and warehouses, in shards."""
