"""What the settings of terms are checked for. No tensor library is imported here."""


def positive(config: object, *names: str) -> None:
    """Raises ValueError where a setting of this name is not positive."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be positive")


def share(config: object, *names: str) -> None:
    """Raises ValueError where a setting of this name is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must lie in [0, 1)")


def between_0_and_1(config: object, *names: str) -> None:
    """Raises ValueError where a setting of this name is not in (0, 1)."""
    for name in names:
        if not 0 < getattr(config, name) < 1:
            raise ValueError(f"{name} must lie between 0 and 1, both exclusive")
