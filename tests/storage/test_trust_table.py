"""What a calibrated checkpoint can promise: the table, and what is said where it cannot."""
import re

import numpy as np
import pytest

from swinmpi.errors import ConfigError
from swinmpi.images.conformal import THRESHOLDS, TOLERANCES
from swinmpi.storage.trust import Tolerance, TrustAsked, TrustTable

SHARE = np.linspace(0, 1, len(THRESHOLDS))


def table(images: int) -> TrustTable:
    """Losses that grow with the threshold and fall with the tolerance."""
    losses = SHARE[None] * np.linspace(1, 0.2, len(TOLERANCES))[:, None]
    return TrustTable(np.array(TOLERANCES), np.array(THRESHOLDS), losses, SHARE, images, images, 8)


def test_more_risk_tolerance_or_images_mark_more():
    for wider in (dict(risk=0.3), dict(tolerance=Tolerance(0.2)), dict(images=400)):
        plain = dict(risk=0.2, tolerance=Tolerance(0.05), images=40)
        less, more = (table(one.pop("images")).trust(TrustAsked(**one))
                      for one in (dict(plain), plain | wider))
        assert less.threshold < more.threshold and less.marked < more.marked, wider


@pytest.mark.parametrize("images", [4, 7, 8, 12, 39, 1200])
def test_the_share_that_is_named_instead_can_be_asked_for(images):
    with pytest.raises(ConfigError) as refused:
        table(images).trust(TrustAsked(1e-5))
    share = float(re.search(r"ask for ([0-9.]+) or more", str(refused.value)).group(1))
    few = table(images)
    none_wrong = TrustTable(few.tolerances, few.thresholds, 0 * few.losses, few.marked, images,
                            images, 8)
    assert none_wrong.trust(TrustAsked(share)).threshold == THRESHOLDS[-1]


def test_a_tolerance_in_units_needs_the_range():
    asked = TrustAsked(0.3, Tolerance.parsed("102"))
    assert table(40).trust(asked, span=1020.0).tolerance == pytest.approx(25 / 255)
    assert table(40).trust(asked).tolerance == pytest.approx(64 / 255), "the range is not known yet"
    with pytest.raises(ConfigError, match="expected at least .* 40 in the units of the data"):
        table(40).trust(TrustAsked(0.3, Tolerance.parsed("39")), span=40 * 255.0)
