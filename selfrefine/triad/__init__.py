"""Triangular Consistency (arXiv 2510.10487): propose triads, rebuild each part from the others, keep what agrees."""
