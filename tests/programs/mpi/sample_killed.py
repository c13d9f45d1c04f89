"""swinmpi-sample whose rank 0 gets a signal as soon as some images are done: argv is SIGNAL,
NUM_IMAGES, command line."""
import os
import signal
import sys

from swinmpi.cli.sample import main
from swinmpi.storage.outputs.output import StackOutput

number, num_images, complete = signal.Signals[sys.argv[1]], int(sys.argv[2]), StackOutput.complete
written = []


def complete_and_signal(output, image_index, *rest):
    complete(output, image_index, *rest)
    written.append(image_index)
    if len(written) == num_images:
        os.kill(os.getpid(), number)


StackOutput.complete = complete_and_signal
sys.exit(main(sys.argv[3:]))
