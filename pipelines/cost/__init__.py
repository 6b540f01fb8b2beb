"""What a recipe will cost, said before it runs: tokens, FLOPs, hours, memory and disk of each stage.

Imports no torch. docs/cost.md has the formulas, the assumptions, and how far off they are.
"""
