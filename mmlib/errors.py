"""The one exception a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """A mistake the user can mend: names the culprit and the remedy in one line.

    The command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, culprit: str, remedy: str) -> None:
        self.culprit, self.remedy = culprit, remedy
        super().__init__(" ".join(f"{culprit}; {remedy}".split()))

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Worker processes send exceptions by pickle, whose default would pass the one joined text as `culprit`."""
        return type(self), (self.culprit, self.remedy)
