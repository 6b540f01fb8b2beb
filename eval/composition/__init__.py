"""Composable splits: which unseen combinations of factors can be put together from what training showed."""
