"""The errors a user can meet, each with the exit code the command line ends with."""
import re

LONGEST_TEXT = 2000


class SwinmpiError(Exception):
    """Base of all expected errors; its text is the one line the user reads, whatever a hostile
    file put into it."""

    exit_code = 1
    left = ""  # what could not be cleaned up, in words

    def __str__(self) -> str:
        said = f"{super().__str__()}; {self.left}" if self.left else super().__str__()
        line = re.sub(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*", " ", said)
        if len(line) > LONGEST_TEXT:  # what is long is a name; what is wrong stands at the end
            line = f"{line[:LONGEST_TEXT // 2]} ... {line[-LONGEST_TEXT // 2:]}"
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


class ConfigError(SwinmpiError):
    """A setting is unknown, of the wrong type, or contradicts another."""

    exit_code = 2


class StackError(SwinmpiError):
    """An input file or dataset is missing, damaged, or not a stack of images."""

    exit_code = 2


class CheckpointError(SwinmpiError):
    """A checkpoint is missing, damaged, or does not fit the configuration."""

    exit_code = 2


class OutputError(SwinmpiError):
    """The output cannot be written where it was asked for."""

    exit_code = 2


class LaunchError(SwinmpiError):
    """The process was started by a launcher that does not fit this MPI, or with an impossible
    layout of ranks."""

    exit_code = 2


class OutputDiffers(SwinmpiError):
    """A verified output is not what it says it is."""


class SomeImagesFailed(SwinmpiError):
    """The run is complete except for the images named in the message."""

    exit_code = 3


class Stopped(SwinmpiError):
    """A signal asked for an end; everything needed to go on is saved."""

    exit_code = 75
