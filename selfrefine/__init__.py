"""The methods, one folder each. A method knows nothing of recipes, runs or the command line."""
