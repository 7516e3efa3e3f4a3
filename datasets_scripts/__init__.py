"""From recordings to data sets: what turns scans into Parquet that `datasets` streams."""

import os

# Or onnxruntime, which finds speech and text here, reports to its maker that it was started.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
