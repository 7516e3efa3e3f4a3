"""Metrics, one folder each, as `evaluate.load` takes them; their functions can be imported as well."""
