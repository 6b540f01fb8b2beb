"""The front: command line, recipe, runner, run store, stages and report."""
