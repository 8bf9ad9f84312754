"""For authors of drivers: the tests that every driver has to pass, and a host to pass them on.

    from netlib.testing import DriverContract

    class TestMine(DriverContract):
        @pytest.fixture
        def driver(self):
            return Mine()

pytest runs them on `FakeKernel`, a host in memory that is as strict as Linux and needs no
rights. Needs pytest.
"""

from __future__ import annotations

from netlib.kernel.fake import FakeKernel
from netlib.store.memory import MemoryStore
from netlib.testing.contract import DriverContract

__all__ = ["DriverContract", "FakeKernel", "MemoryStore"]
