"""SR²: a latent estimate of the answer, refined by the same layers again and again (arXiv 2510.08222)."""
