"""What can go wrong when the platform is started or stopped, as a person needs to read it."""

from pathlib import Path


class LauncherError(Exception):
    """The message says what is wrong and how to mend it; `log_path` and `log_tail` show where to look."""

    def __init__(self, message: str, *, log_path: Path | None = None, log_tail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.log_path = log_path
        self.log_tail = log_tail

    def __str__(self) -> str:
        """The message, then the last lines of the log and its path."""
        parts = [self.message]
        if self.log_tail:
            parts.append("Last lines of its log:\n" + "\n".join(f"  {line}" for line in self.log_tail.splitlines()))
        if self.log_path is not None:
            parts.append(f"The whole log: {self.log_path}")
        return "\n".join(parts)
