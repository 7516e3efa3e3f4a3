"""Training of DualRep: runs from a checkout, is not in the wheel."""

import os

# Or onnxruntime, which checks exported towers, reports to its maker that it was started.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
