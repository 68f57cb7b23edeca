"""Build backend that refuses: this repository is cloned and used in place, not installed."""

MESSAGE = (
    "instance-cascade is not a package to install: clone the repository and run `make setup` in it"
)


def build_wheel(*_: object, **__: object) -> str:
    """Refuse, with what to do instead."""
    raise SystemExit(f"error: {MESSAGE}")


build_sdist = build_editable = build_wheel
