"""The command line: ``ecrl <command> [overrides…]``."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from ecrl.errors import EcrlError, first_to_say, unknown_name
from ecrl.runs import os_errors

USAGE = """ecrl: entropy-controlled reinforcement learning of reasoning language models

  ecrl train  [overrides…]   train a policy            (no model named: a small one is built)
  ecrl eval   [overrides…]   evaluate a policy         ecrl eval RUN; ecrl eval model.path=DIR eval=paper_math
  ecrl warmup [overrides…]   supervised warm start     ecrl warmup env=countdown output=DIR
  ecrl export RUN OUTPUT     the policy of a run's last checkpoint, in HF format; --push: to the hub
  ecrl sweep  output=DIR arms=… seeds=[1,2,3]   strategies × seeds, resumable
  ecrl report RUNS… output=DIR   one page that compares runs, with intervals over seeds
  ecrl rollouts RUN [iteration=N]   browse what a run drew: filter, sort, one response in full
  ecrl replay RUN iteration=N strategy=[NAME]   which tokens strategies choose of a run's rollout
  ecrl plan   [overrides…]   memory, work and time     ecrl plan experiment=paper_7b_kl_cov gpus=8
  ecrl serve  model.path=DIR port=8000   a vLLM server for engine=vllm_server
  ecrl law RUN…              R = −a·exp(H) + b         ecrl law runs/* reward=COLUMN output=DIR
  ecrl theory [output=DIR]   first-order theory of entropy change against exact steps
  ecrl envs                  list environments; look at one
  ecrl strategies            list entropy-control strategies and objectives; `show NAME` looks at one
  ecrl doctor                list what is installed, and what each missing package would enable

`ecrl COMMAND --help` says more. Overrides are Hydra's: seed=1 strategy=[clip_cov,clip_higher] update.lr=1e-5
"""


# A module is imported only when its command runs, so that no command waits for what another one needs.
COMMANDS = {
    "train": "ecrl.cli.train",
    "eval": "ecrl.cli.evaluate",
    "warmup": "ecrl.cli.warmup",
    "export": "ecrl.cli.export",
    "sweep": "ecrl.cli.sweep",
    "report": "ecrl.cli.report",
    "rollouts": "ecrl.cli.rollouts",
    "replay": "ecrl.cli.replay",
    "plan": "ecrl.cli.plan",
    "serve": "ecrl.cli.serve",
    "law": "ecrl.cli.law",
    "theory": "ecrl.cli.theory",
    "envs": "ecrl.cli.envs",
    "strategies": "ecrl.cli.strategies",
    "doctor": "ecrl.cli.doctor",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0; 1 for a run that failed; 2 for bad input; 130 or 143 for a run stopped by a signal; 141 if its
        output is no longer read.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    # The user's own modules lie where the command is called, as for `python -m`.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        code = _run(words[0], words[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return 128 + signal.SIGPIPE
    except EcrlError as error:
        if not error.said_elsewhere and first_to_say(str(error)):
            print(f"ecrl: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, MemoryError, RuntimeError) as error:
        message = os_errors.describe(error)
        if message is None:
            raise
        if not getattr(error, "said_elsewhere", False):
            print(f"ecrl: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        return _interrupted(stop)
    except SystemExit as end:
        # Lightning turns KeyboardInterrupt into SystemExit without a message.
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        return _interrupted(end.__context__)


def _run(name: str, words: Sequence[str]) -> int:
    """Run a command's module: it has a ``COMMAND`` that parses the words, and a ``main`` that takes them."""
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    module = import_module(COMMANDS[name])
    if any(word in ("-h", "--help") for word in words):
        print(module.COMMAND.help_text())
        return 0
    code: int = module.main(module.COMMAND.parse(words))
    return code


def _nobody_reads() -> bool:
    """Whether what reads our output is gone, as ``head -1`` is after a line; what is left is dropped then."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # it is no file
        return False
    # To write would not tell: what failed to be written may have left the buffer.
    waiting = select.poll()
    waiting.register(output, 0)
    if not any(event & select.POLLERR for _, event in waiting.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _interrupted(stop: KeyboardInterrupt) -> int:
    """Say which signal it was: the one whose number the exception carries, or else SIGINT."""
    number = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)
    if "ECRL_LAUNCHER" not in os.environ:  # the launcher got the signal too, and speaks for all processes
        print(f"ecrl: interrupted by {number.name}.", file=sys.stderr)
    return 128 + number
