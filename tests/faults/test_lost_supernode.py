"""SuperNodes and a SuperLink started by hand: with addresses and keys of their own, and refused."""

from __future__ import annotations

import time

import pytest
from support.federation import can_be_apart, federation, main


@pytest.mark.slow  # 1 to 5 min
@pytest.mark.skipif(not can_be_apart(), reason="needs root, iproute2, openssl and ssh-keygen")
def test_nodes_with_addresses_and_keys_of_their_own_change_no_bit(
    capfd: pytest.CaptureFixture[str],
) -> None:
    main()
    told = capfd.readouterr().out
    assert told.count("the same bytes") == 3


@pytest.mark.slow  # 30 s
@pytest.mark.skipif(not can_be_apart(), reason="needs root, iproute2, openssl and ssh-keygen")
def test_a_node_without_a_key_that_is_known_is_refused() -> None:
    with federation(1, apart=True) as found:
        found.stop("node-0")
        found.make_key("stranger")
        found.start_node(0, key="stranger")
        stranger = found.programs["node-0"]
        until = time.monotonic() + 120
        while stranger.poll() is None and time.monotonic() < until:
            time.sleep(0.5)
        assert stranger.poll() not in (None, 0), found.log("node-0")
        print(found.log("node-0"))
