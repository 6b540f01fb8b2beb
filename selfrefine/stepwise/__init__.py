"""Step-aware policy optimization: reinforcement learning that also rewards progress inside a reasoning trace.

Not TRL's `sapo`, which is *Soft Adaptive* Policy Optimization: that changes the loss, this changes the advantage.
"""
