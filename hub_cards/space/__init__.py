"""The app that shows what a trained model makes of a scan."""
