"""What a server holds is bounded."""

import pytest

from sparsekit.serve.errors import RequestError
from sparsekit.serve.limits import Limits
from sparsekit.serve.work.admission import Budget, Throughput


def test_a_budget_is_bounded_and_refuses_what_can_never_fit():
    budget = Budget(10, "tokens", "the queue")
    budget.take(6)
    with pytest.raises(RequestError, match="11 tokens, and the queue holds 10; split it") as never:
        budget.take(11)
    with pytest.raises(RequestError, match="6 of 10 tokens are taken") as later:
        budget.take(5)
    assert (never.value.status, never.value.headers) == (413, {})
    assert (later.value.status, later.value.headers) == (429, {"retry-after": "1"})
    budget.check(4)
    assert budget.held == 6
    budget.give_back(6)
    budget.take(10)


def test_retry_after_is_what_the_queue_takes():
    throughput = Throughput()
    assert throughput.seconds(100) == 0.0
    for _ in range(3):
        throughput.note(100, 0.5)
    assert throughput.seconds(1000) == pytest.approx(5.0)
    for _ in range(50):
        throughput.note(100, 1.0)
    assert throughput.seconds(1000) == pytest.approx(10.0, rel=1e-3)
    assert throughput.seconds(10**9) == 60.0
    budget = Budget(1000, "tokens", "the queue", throughput)
    budget.take(950)
    with pytest.raises(RequestError) as refused:
        budget.take(51)
    assert refused.value.headers == {"retry-after": "10"}


def test_limits_are_checked():
    assert Limits(max_wait_ms=0).batch_tokens == 256
    for name, value in (("queue_tokens", 0), ("max_wait_ms", -1.0), ("texts", -3)):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            Limits(**{name: value})
