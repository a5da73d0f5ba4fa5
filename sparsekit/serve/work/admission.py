"""Admission: what a server holds is bounded, and a request that finds no room is told when to come again."""

from __future__ import annotations

from sparsekit.serve.errors import RequestError, too_large

#: Weight of the latest batch in the mean speed.
_LATEST = 0.2
#: Longest time in seconds after which a client is told to come again.
_LONGEST = 60.0


class Throughput:
    """Mean speed of a model, in tokens a second."""

    def __init__(self) -> None:
        self._seconds_per_token = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """Learn from a batch."""
        latest = seconds / max(tokens, 1)
        known = self._seconds_per_token
        self._seconds_per_token = latest if known == 0 else known + _LATEST * (latest - known)

    def seconds(self, tokens: int) -> float:
        """How long a number of tokens takes, at most a minute; 0 before anything was computed."""
        return min(_LONGEST, tokens * self._seconds_per_token)


class Budget:
    """A bounded amount, of which requests hold parts.

    Args:
        limit: the whole.
        noun: what is counted, such as "tokens".
        place: what holds it, such as "the queue of all-minilm".
        throughput: speed at which tokens are given back, for `Retry-After`.

    `held` is the part that is taken.
    """

    def __init__(self, limit: int, noun: str, place: str, throughput: Throughput | None = None) -> None:
        self.limit = limit
        self.held = 0
        self._noun = noun
        self._place = place
        self._throughput = throughput or Throughput()

    def take(self, amount: int) -> None:
        """Take a part.

        Raises:
            RequestError: 413 if the amount exceeds the whole, 429 if it exceeds what is left.
        """
        self.check(amount)
        self.held += amount

    def check(self, amount: int) -> None:
        """Raise what `take` would raise, and take nothing."""
        if amount > self.limit:
            raise too_large(
                f"the request has {amount:,} {self._noun}, and {self._place} holds {self.limit:,}; split it"
            )
        if self.held + amount > self.limit:
            message = f"{self._place} is full: {self.held:,} of {self.limit:,} {self._noun} are taken; try again later"
            raise RequestError(429, message, "overloaded", retry_after=self._throughput.seconds(self.held))

    def give_back(self, amount: int) -> None:
        """Give a part back."""
        self.held -= amount
