"""A run as a small web page that refreshes itself. It only reads."""
