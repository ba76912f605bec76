"""Random ids: what they look like, and that no two are the same."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from segment_tools.ids import new_id


def test_an_id_is_a_random_uuid() -> None:
    for _ in range(1000):
        made = new_id()
        read = uuid.UUID(made)
        assert (str(read), read.version, read.variant) == (made, 4, uuid.RFC_4122)


def test_every_digit_that_may_vary_does() -> None:
    made = [new_id() for _ in range(2000)]
    places = [{text[place] for text in made} for place in range(36)]
    assert [len(found) for found in places] == [
        1 if n in (8, 13, 14, 18, 23) else 4 if n == 19 else 16 for n in range(36)
    ]


def test_ids_made_in_several_threads_are_different() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [each for some in pool.map(lambda _: [new_id() for _ in range(2000)], range(8)) for each in some]
    assert len(set(made)) == 16_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_process_has_ids_of_its_own() -> None:
    new_id()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, " ".join(new_id() for _ in range(20)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        theirs = set(told.read().split())
    os.waitpid(child, 0)
    assert len(theirs) == 20
    assert not theirs & {new_id() for _ in range(1000)}
