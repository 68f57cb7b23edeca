"""The only importer of mmdet, mmcv and mmengine; importing it makes their operators work."""

import re
import warnings

from src.mmdet_bridge.kernels import install_kernels

# Two docstrings of mmdet's have a lone backslash, which Python says when it compiles them first:
# https://docs.python.org/3/whatsnew/3.12.html#other-language-changes
for _sequence in (r"\ ", r"\i"):
    warnings.filterwarnings(
        "ignore",
        message=re.escape(f"invalid escape sequence '{_sequence}'") + "$",
        category=SyntaxWarning,
        module=r".*\bmmdet\b",
    )

install_kernels()
