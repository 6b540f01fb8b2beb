"""Training on several processes: torch's and Hugging Face's own launchers start them, here is what a run needs beside.

A run has one driver, which brings its stages up to date. Where a training has several processes, the driver starts a
launcher, or joins the one it runs under; each process opens the same stage (`worker.py`) and trains. What they tell the
driver they leave in the stage's directory (`exchange.py`). Nothing here imports torch before a training begins.
"""
