"""Functions from completions to floats, or None where a completion could not be scored."""
