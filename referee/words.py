"""Words that depend on numbers."""


def number_of(n: int, what: str, several: str = "") -> str:
    """How many of something.

    >>> number_of(1, "run"), number_of(1200, "run"), number_of(0, "copy", "copies")
    ('1 run', '1,200 runs', '0 copies')
    """
    return f"{n:,} {what if n == 1 else several or what + 's'}"
