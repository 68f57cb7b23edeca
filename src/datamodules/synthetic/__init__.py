"""Generated photos: dressed figures drawn by code, in the competition's layout."""

from src.datamodules.synthetic.csv_only import synthesize_csv
from src.datamodules.synthetic.dataset import synthesize

__all__ = ["synthesize", "synthesize_csv"]
