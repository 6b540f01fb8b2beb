"""Where problems and unlabelled images come from."""
