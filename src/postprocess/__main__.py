"""Run ``python -m src.postprocess``: from the prediction store to a submission."""

from src.cli.postprocess import main

if __name__ == "__main__":
    main()
