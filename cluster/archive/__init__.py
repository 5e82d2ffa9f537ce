"""The archive: closed journeys as a Parquet dataset that needs no Waybill to be read, published and dropped transactionally."""
