"""Puzzles as arrays of cells: solved, graded, turned by their symmetries, drawn, read and written."""
