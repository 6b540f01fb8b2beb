"""Runs that are kept at a URL."""
