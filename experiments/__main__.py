"""The one door: `python -m experiments` lists what there is; `python -m experiments NAME …` runs it."""

import sys
from collections.abc import Sequence

from experiments.curvature import asymmetric_scaling
from experiments.lab.command_line import exit_on_bad_input, main
from experiments.problems import PROBLEMS


def door(arguments: Sequence[str]) -> None:
    main(asymmetric_scaling.EXPERIMENT, PROBLEMS, arguments[1:])


if __name__ == "__main__":
    exit_on_bad_input(lambda: door(sys.argv[1:]))
