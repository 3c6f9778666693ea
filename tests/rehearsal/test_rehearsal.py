"""The semester is played once; the tutorial is what was narrated."""

import pytest

from tests.rehearsal.semester import play
from tests.rehearsal.stage import Stage


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return play(tmp_path_factory.mktemp("semester"))


def test_what_must_be_refused_was_refused(played: Stage) -> None:
    assert {"STG-001", "STG-006", "REV-032"} <= set(played.refused)
