"""What a run is to bring about, as its row keeps it: enough for any process to carry it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from idxctl.core.errors import UsageError
from idxctl.rebuild.lifetime import Lifetime
from idxctl.rebuild.preflight import Plan
from idxctl.rebuild.steps import Options

_SOME = 10  # refused documents that a swap goes on with where nobody says how many
_SHARE = 0.01  # or this share of all


@dataclass(frozen=True)
class Allowed:
    """How many documents may be refused: a *count* of them, or a *share* of all; without either, a few."""

    count: int | None = None
    share: float | None = None

    @classmethod
    def of(cls, text: str | None) -> Allowed:
        """Read ``N`` or ``N%``; raises `UsageError`."""
        if text is None:
            return cls()
        number = text.strip().removesuffix("%")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if text.strip().endswith("%") and 0 <= value <= 100:
            return cls(share=value / 100)
        if not text.strip().endswith("%") and value >= 0 and value == int(value):
            return cls(count=int(value))
        raise UsageError(
            f"--max-failures {text} is neither a number of documents nor a share",
            hint="--max-failures 10, or --max-failures 0.1%",
        )

    def most(self, documents: int) -> int:
        """Return how many of so many documents may be refused."""
        if self.count is not None:
            return self.count
        if self.share is not None:
            return int(documents * self.share)
        return max(_SOME, int(documents * _SHARE))


@dataclass(frozen=True)
class Aim:
    """
    What was planned and chosen when a run began; who resumes it may choose again.

    ``foreign``: an index that is not ours and that the alias is taken from. ``replaces_index``: a concrete index bears the
    alias's name. ``swap``: False stops when the generation is ready.
    """

    foreign: str | None = None
    replaces_index: bool = False
    lifetime: Lifetime = field(default_factory=lambda: Lifetime({}, {}))
    keep: timedelta = timedelta(days=1)
    wait_for_copies: timedelta = timedelta(minutes=30)
    max_failures: str | None = None
    check: str = "content"
    swap: bool = True

    @classmethod
    def of(cls, plan: Plan, options: Options) -> Aim:
        """Return what a new run aims at."""
        return cls(plan.foreign, plan.replaces_index, plan.lifetime).chosen(options)

    def chosen(self, options: Options) -> Aim:
        """Return the same with what *options* say; where they are silent, as it was."""
        said = {
            name: value
            for name in ("keep", "wait_for_copies", "max_failures", "check")
            if (value := getattr(options, name)) is not None
        }
        return replace(self, **said, swap=options.swap)

    @property
    def allowed(self) -> Allowed:
        """How many documents may be refused."""
        return Allowed.of(self.max_failures)

    def stored(self) -> dict[str, Any]:
        """Return it as JSON for the run's row."""
        return {
            "foreign": self.foreign,
            "replaces_index": self.replaces_index,
            "lifetime": {
                "asked": dict(self.lifetime.asked),
                "given": dict(self.lifetime.given),
                "default_replicas": self.lifetime.default_replicas,
            },
            "keep_seconds": self.keep.total_seconds(),
            "wait_for_copies_seconds": self.wait_for_copies.total_seconds(),
            "max_failures": self.max_failures,
            "check": self.check,
            "swap": self.swap,
        }

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Aim | None:
        """Return what a run's row says; None for one of a release that did not say it."""
        if "lifetime" not in stored:
            return None
        lifetime = stored["lifetime"]
        return cls(
            stored["foreign"],
            stored["replaces_index"],
            Lifetime(lifetime["asked"], lifetime["given"], lifetime["default_replicas"]),
            timedelta(seconds=stored["keep_seconds"]),
            timedelta(seconds=stored["wait_for_copies_seconds"]),
            stored["max_failures"],
            stored["check"],
            stored["swap"],
        )
