"""Which version of the code this is."""
import subprocess
from pathlib import Path


def git_revision() -> str | None:
    """Of the checkout this package runs from; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    answer = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True,
                            text=True, check=False)
    return answer.stdout.strip() or None
