"""Import of history in bulk: CSV and Parquet from elsewhere, by a mapping of columns, as a restartable job of Ray tasks.

`mapping` says what the columns are, `pieces` cuts files, `parse` turns a piece into a batch and the rows it refuses, `job` sends the pieces
through the ordinary door (so that all is journaled and judged), keeps what was done, and gives an account of every row.
"""
