"""Images and annotations as batches."""

import os

# Before albumentations is imported, which else asks the network for its newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
