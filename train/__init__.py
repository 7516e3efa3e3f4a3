"""Training of DualRep: runs from a checkout, is not in the wheel."""
