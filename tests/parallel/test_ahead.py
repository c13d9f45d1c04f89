"""Items made ahead by other processes: the order in which they are asked for, failures, warnings,
ends."""
import os
import signal
import warnings

import pytest

from swinmpi.errors import StackError, SwinmpiError
from swinmpi.parallel.ahead import made_ahead

NAMES = [f"image {number}" for number in range(9)]


def squares(number):
    """More than a pipe holds, so that who is early must wait to be asked."""
    for item in range(4):
        yield number * number, item, b"x" * 100_000


def asked(work, num_processes, names=NAMES):
    with made_ahead(work, names, num_processes) as made_of:
        return [list(made_of(number)) for number in range(len(names))]


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_items_come_in_the_order_in_which_they_are_asked_for(num_processes):
    assert asked(squares, num_processes) == [list(squares(number)) for number in range(9)]


def test_the_work_is_done_elsewhere_and_nothing_is_left_of_it():
    made = asked(lambda number: iter([os.getpid()]), 3)
    processes = {pid for items in made for pid in items}
    assert len(processes) <= 3 and os.getpid() not in processes
    for pid in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("num_processes", [1, 3])
def test_a_failure_comes_after_what_was_made_before_it_and_others_go_on(num_processes):
    def work(number):
        yield number
        if number % 2:
            raise StackError(f"{number} is odd")
        yield -number

    made = []
    with made_ahead(work, NAMES, num_processes) as made_of:
        for number in range(9):
            try:
                for item in made_of(number):
                    made.append(item)
            except StackError as error:
                made.append(str(error))
    assert made[:6] == [0, 0, 1, "1 is odd", 2, -2] and made[-2:] == [8, -8]


@pytest.mark.parametrize("num_processes", [1, 3])
def test_whoever_asks_may_stop_in_the_middle(num_processes):
    with made_ahead(squares, NAMES, num_processes) as made_of:
        firsts = [next(iter(made_of(number)))[0] for number in range(9)]
    assert firsts == [number * number for number in range(9)]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_warnings_come_up_in_order(num_processes):
    def work(number):
        warnings.warn(f"number {number}", UserWarning, stacklevel=1)
        yield number

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert asked(work, num_processes) == [[number] for number in range(9)]
    assert [str(one.message) for one in heard] == [f"number {number}" for number in range(9)]


def test_a_process_that_dies_is_told_in_one_line():
    def work(number):
        yield number
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(SwinmpiError, match="image 3: .*ended by signal 9.*fewer --workers"):
        asked(work, 2)


def test_what_is_no_error_of_ours_keeps_its_traceback():
    def work(number):
        yield number / (number - 4)

    with pytest.raises(ZeroDivisionError) as caught:
        asked(work, 2)
    assert "in work" in caught.value.__notes__[0]
