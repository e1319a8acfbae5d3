from __future__ import annotations

from datetime import UTC, datetime

from domain.acknowledgement import Acknowledged, Rewound, acknowledged, rewound

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def test_an_acknowledgement_is_a_stream_of_its_own_and_says_what_is_dealt_with() -> None:
    event = acknowledged("ack_1", "sub_1", (7, 9), 3, 5, NOW)
    assert event == Acknowledged("ack_1", 1, NOW, subscription_id="sub_1", positions=(7, 9), after=3, cursor=5)


def test_going_back_is_a_stream_of_its_own_and_says_from_where() -> None:
    assert rewound("ack_2", "sub_1", 5, NOW) == Rewound("ack_2", 1, NOW, subscription_id="sub_1", cursor=5)
