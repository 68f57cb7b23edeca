"""Run ``python -m src.lab``: move thresholds, see every mask and the score move."""

from src.cli.lab import main

if __name__ == "__main__":
    main()
