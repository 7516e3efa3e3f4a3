"""Cards and uploads for the Hub; reads what training wrote, and imports no model."""
