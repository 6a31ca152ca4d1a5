"""Numbers for people, and `—` for what is not known."""

NOTHING = "—"


def seconds(value: float | None) -> str:
    """Three digits, in the unit that suits."""
    if value is None:
        return NOTHING
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.3g} s"


def size(value: int | None) -> str:
    """Bytes."""
    if value is None:
        return NOTHING
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def number(value: object) -> str:
    """As it is."""
    return NOTHING if value is None else str(value)
