"""What tests of several parts share: waiting without sleeping, and running a service in the test."""

from tests_support.running import running
from tests_support.servers import Servers
from tests_support.waiting import eventually

__all__ = ["Servers", "eventually", "running"]
