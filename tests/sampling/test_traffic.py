"""What travels in a step by each exchange, worked out."""
import pytest

from swinmpi.sampling.traffic import traffic


@pytest.mark.parametrize(("border", "at_most"), [("wrap", 1 / 50), ("reflect", 1 / 30)])
def test_strips_are_small_against_frames(border, at_most):
    """2048 px, window 256, 8 ranks: also the rank that receives most, in the mean over
    the circular pattern."""
    figures = traffic(2048, 256, 8, border=border)
    assert figures["torus"].most < at_most * figures["root"].mean, figures


def test_traffic_of_a_case_small_enough_to_count_by_hand():
    """Two windows side by side wrap round; the shift moves them by 4 px of 16, back and forth, over
    one row of windows."""
    both = traffic(32, 16, 2, channels=1, border="wrap")
    assert both["root"].most == 32 * 32 * 4
    assert both["root"].mean == (32 * 32 * 4 + 2 * 16 * 16 * 4) / 2
    # Each rank owns a row of windows: only the two changes of dy send 4 rows of 32 px to each rank.
    assert both["torus"].most == both["torus"].mean == (2 * 4 * 32 * 4) / 4
