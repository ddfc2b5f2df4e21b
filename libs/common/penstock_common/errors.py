"""Failures that are expected, and carry what the edge needs to answer them."""


class DomainError(Exception):
    """A request that cannot be granted. `code` is stable and for programs, `detail` for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Unavailable(DomainError):
    """Another service did not answer in time, or is not running."""

    def __init__(self, service: str, detail: str) -> None:
        super().__init__("unavailable", detail)
        self.service = service
