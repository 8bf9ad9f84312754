"""The segment driver keeps the contract, and does what it is for."""

from __future__ import annotations

import pytest
from netlib_segment import Segment

from netlib.model import Network
from netlib.net import Net
from netlib.testing import DriverContract
from netlib.wiring import Address, Bridge


class TestSegment(DriverContract):
    """All that netlib relies on."""

    @pytest.fixture
    def driver(self) -> Segment:
        """The driver."""
        return Segment()

    def test_the_host_has_no_address_on_a_segment(self, net: Net, network: Network) -> None:
        """There is a bridge, and that is all."""
        wiring = net.inspect(network.id).wiring
        assert [type(noun) for noun in wiring] == [Bridge]
        assert not [noun for noun in wiring if isinstance(noun, Address)]
