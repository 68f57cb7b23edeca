"""The functions of the public API; ``src`` exports them with the types that they take and give.

They give the numbers of the commands (``python -m src.postprocess``, ``src.score``,
``src.compare``) to the last digit, because they call what those call.
"""
