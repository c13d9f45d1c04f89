"""swinmpi-sample whose rank 0 gets a signal as soon as some images are done: argv is SIGNAL,
NUM_IMAGES, command line."""
import os
import signal
import sys

from swinmpi.cli.sample import main
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.pictures.store import PictureStore

number, num_images = signal.Signals[sys.argv[1]], int(sys.argv[2])
written = []


def signalling(complete):
    def complete_and_signal(output, image_index, *rest):
        complete(output, image_index, *rest)
        written.append(image_index)
        if len(written) == num_images:
            os.kill(os.getpid(), number)
    return complete_and_signal


for store in (StackOutput, PictureStore):
    store.complete = signalling(store.complete)
sys.exit(main(sys.argv[3:]))
