"""A loop over some of a pretrained model's layers, trained with a loss at periodic iterations."""
