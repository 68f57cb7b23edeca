"""Train, tune and submit instance segmentation cascades."""
