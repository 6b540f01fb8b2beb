"""Several engines behind one: Ray workers that each hold the whole model and share out the requests."""
