"""What all sections have in common, and the bounds of their values."""
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Beyond any network and machine, so that a slip of the pen is told, not computed.
WIDEST, DEEPEST, MOST_AT_ONCE = 1 << 14, 1 << 8, 1 << 12
MOST_COUNT, MOST_SEED = 1 << 30, 2**63
Count = Annotated[int, Field(ge=1, le=MOST_AT_ONCE)]


class Section(BaseModel):
    """A YAML section: unknown keys and silent conversions are refused, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
