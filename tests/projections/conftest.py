from __future__ import annotations

import pytest

from interfaces.postgres.pool import Pool
from tests.projections.live import Live


@pytest.fixture
def live(pool: Pool) -> Live:
    return Live(pool)
