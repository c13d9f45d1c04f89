"""What swinmpi-sample was asked to read and write, and whether it may; told within a second, because torch is not needed."""
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from swinmpi.config import Config
from swinmpi.errors import OutputError
from swinmpi.storage.address import parse_address
from swinmpi.storage.output import OutputPlan, check_output
from swinmpi.storage.stack import Stack


@dataclass(frozen=True)
class SampleRequest:
    """What to read and write. `new_folder`: the output's folder is made where it is missing."""

    stack: str
    output: Path
    checkpoint: Path
    ensemble: int = 1
    overwrite: bool = False
    allow_external: bool = False
    new_folder: bool = False


def check_stack(request: SampleRequest) -> None:
    """StackError unless the input is a stack of images. Reads no pixels. On one process."""
    Stack.open(request.stack, request.allow_external).close()


def check_destination(request: SampleRequest) -> None:
    """OutputError unless the output may be written where it was asked for. Leaves nothing behind. On one process."""
    folder = Path(os.path.realpath(request.output)).parent
    if request.new_folder and not folder.exists():
        while not folder.exists():
            folder = folder.parent
    else:
        check_output(request.output, parse_address(request.stack).path, request.overwrite)
    try:
        # Rights tell little for root or on a read-only mount: only trying does.
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{request.output}: cannot write into the folder {folder} ({error.strerror}); "
                          "choose another --output") from None


def output_plan(request: SampleRequest, config: Config) -> OutputPlan:
    """What the output will hold."""
    return OutputPlan(config.model.scale, request.ensemble > 1, config.output.regression, config.output.compression)
