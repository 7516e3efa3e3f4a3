"""From recordings to data sets: what turns scans into Parquet that `datasets` streams."""
