"""Saliency maps against where people looked."""
