"""Running deviations: of the last fifth of the updates, and never of more than some."""
import torch
from torch import nn

from swinmpi.models.deviations import LONGEST, Deviations, note_measured


def test_they_follow_the_last_updates():
    measured = Deviations(["a", "b"], 9.0)
    model = nn.Sequential(nn.Linear(1, 1), measured)
    for update, square in enumerate((1.0, 3.0, 5.0)):
        note_measured(model, {"a": square, "b": 4.0, "loss": 7.0}, update)
    torch.testing.assert_close(measured.values, torch.tensor([5.0**0.5, 2.0]))
    torch.testing.assert_close(measured.common(), torch.full((2,), 4.5**0.5))
    note_measured(model, {"a": 7.0, "b": 4.0}, 9)  # a fifth of ten are two
    torch.testing.assert_close(measured.values, torch.tensor([6.0**0.5, 2.0]))
    note_measured(model, {"a": 6.0 + LONGEST, "b": 4.0}, 10**6)
    torch.testing.assert_close(measured.values, torch.tensor([7.0**0.5, 2.0]))
    for update in range(10 * LONGEST):
        note_measured(model, {"a": 16.0, "b": 4.0}, update)
    torch.testing.assert_close(measured.values, torch.tensor([4.0, 2.0]), rtol=1e-3, atol=0)
    assert model.state_dict()["1.values"] is not None, "kept in the checkpoint"
    assert list(measured.parameters()) == [], "and not learned"
