"""Words that depend on numbers."""

from referee.words import number_of


def test_one_is_singular():
    assert [number_of(n, "run") for n in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
    assert [number_of(n, "copy", "copies") for n in (1, 2)] == ["1 copy", "2 copies"]
