"""swinmpi-sample whose last rank gets USR2 in the middle of a step: argv is the number
of the step, command line."""
import os
import signal
import sys

from swinmpi.cli.sample import main
from swinmpi.parallel.launch import launcher_rank, launcher_size
from swinmpi.sampling.predictor import Predictor

step, predict, calls = int(sys.argv[1]), Predictor.__call__, []


def predict_and_signal(predictor, *arguments):
    predict(predictor, *arguments)
    calls.append(1)
    if len(calls) == step and launcher_rank() == launcher_size() - 1:
        os.kill(os.getpid(), signal.SIGUSR2)


Predictor.__call__ = predict_and_signal
sys.exit(main(sys.argv[2:]))
