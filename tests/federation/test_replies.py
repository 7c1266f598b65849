from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from fedexp.federation.replies import letting_go
from flwr.app import RecordDict

from fedexp.flower.messages import to_record


def test_a_reply_that_was_looked_into_goes_with_its_last_reference() -> None:
    content = RecordDict({"arrays": to_record({"w": np.zeros(3)})})
    alive = weakref.ref(content)
    with letting_go():
        assert len(content.array_records) == 1  # the view and its check know each other
    del content
    assert alive() is None
    assert gc.isenabled()


def test_garbage_is_collected_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="no aggregate"), letting_go():
        raise ValueError("no aggregate")
    assert gc.isenabled()
