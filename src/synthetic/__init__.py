"""Generated images: dressed figures drawn by code, in the competition's layout."""

from src.synthetic.csv_only import synthesize_csv
from src.synthetic.dataset import synthesize

__all__ = ["synthesize", "synthesize_csv"]
