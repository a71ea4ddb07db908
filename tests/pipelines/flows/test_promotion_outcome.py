from typing import Any

import pytest

from pipelines.flows.promotion_outcome import PromotionOutcome

PROMOTION = {"version": "4", "champion": "4", "previous_champion": "3", "moved": True, "reason": "it is better"}
STAYS = PROMOTION | {"champion": "3", "moved": False, "reason": "its score 0.8 is below the champion's 0.9"}
NONE = STAYS | {"champion": None, "previous_champion": None, "reason": "the gate failed"}
UNMET = ("near_ood_auroc is 0.71, at least 0.9 is wanted",)


def verdict(promotion: dict[str, Any] | None, **others: Any) -> PromotionOutcome:
    return PromotionOutcome("gcrl", "hybrid", 0.9, **{"unmet": (), "promotion": promotion} | others)


@pytest.mark.parametrize(
    ("given", "succeeded", "moved", "told"),
    [
        (verdict(PROMOTION), True, True, "champion of gcrl is now version 4 (hybrid): it is better"),
        (verdict(STAYS), True, False, "champion of gcrl stays version 3: its score 0.8 is below the champion's 0.9"),
        (verdict(PROMOTION, fresh=False), True, False, "champion of gcrl stays version 4"),
        (
            verdict(STAYS, unmet=UNMET),
            False,
            False,
            "the gate failed: near_ood_auroc is 0.71, at least 0.9 is wanted; champion stays version 3",
        ),
        (
            verdict(NONE, unmet=UNMET),
            False,
            False,
            "the gate failed: near_ood_auroc is 0.71, at least 0.9 is wanted; there is no champion yet",
        ),
        (verdict(NONE | {"version": None}), False, False, "no champion of gcrl yet: the gate failed"),
        (
            verdict(None, pending="no answer"),
            False,
            False,
            "the promotion of hybrid is pending (no answer). The models",
        ),
        (
            verdict(None, pending="no answer", unmet=UNMET),
            False,
            False,
            "the gate failed: near_ood_auroc is 0.71, at least 0.9 is wanted; the promotion of hybrid is pending",
        ),
    ],
)
def test_the_end_of_a_run_in_words(given: PromotionOutcome, succeeded: bool, moved: bool, told: str) -> None:
    assert given.sentence().startswith(told)
    assert given.succeeded == succeeded
    assert given.moved == moved
