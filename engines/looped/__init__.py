"""A span of a pretrained model's layers, run again on its own output: the loop, its cache, its directory on disk."""
