"""Running deviations: a mean of all updates at first, of the last ones later."""
import torch
from torch import nn

from swinmpi.models.deviations import LONGEST, Deviations, note_measured


def test_they_begin_as_the_mean_and_follow_the_last_updates():
    measured = Deviations(["a", "b"], 9.0)
    model = nn.Sequential(nn.Linear(1, 1), measured)
    for update, square in enumerate((1.0, 3.0, 5.0)):
        note_measured(model, {"a": square, "b": 4.0, "loss": 7.0}, update)
    torch.testing.assert_close(measured.values, torch.tensor([3.0**0.5, 2.0]))
    torch.testing.assert_close(measured.common(), torch.full((2,), 3.5**0.5))
    for update in range(8 * LONGEST):
        note_measured(model, {"a": 16.0, "b": 4.0}, 3 + update)
    torch.testing.assert_close(measured.values, torch.tensor([4.0, 2.0]), rtol=1e-3, atol=0)
    assert model.state_dict()["1.values"] is not None, "kept in the checkpoint"
    assert list(measured.parameters()) == [], "and not learned"
