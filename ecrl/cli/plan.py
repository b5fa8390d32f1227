"""``ecrl plan``: the memory, work and time that a run would need."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import fill

from ecrl.cli.arguments import Arguments, Command
from ecrl.config.compose import as_yaml, build_config
from ecrl.config.limits import count
from ecrl.config.schema import Config
from ecrl.estimate.assumptions import Assumptions
from ecrl.estimate.cards import CARDS


@dataclass(frozen=True)
class Settings(Assumptions):
    """The assumptions, and a short form of two overrides.

    Attributes:
        gpus: stands for ``trainer.devices=… trainer.num_nodes=1``.
    """

    gpus: int | None = count(None, least=1)


COMMAND = Command(
    name="plan",
    help=f"""ecrl plan: the memory, work and time that a run would need; needs no GPU

  ecrl plan experiment=paper_7b_kl_cov gpus=8 gpu_memory=80
  ecrl plan [overrides…]

Beside the overrides of `ecrl train` it takes:
  gpus=N             trainer.devices=N trainer.num_nodes=1
  gpu=NAME           kind of GPU, see below                                      (default: h100)
  gpu_memory=GIB     memory of each GPU                                          (default: the card's)
  utilisation=SHARE  of the GPU's FLOP/s that training reaches                   (default: 0.35)
  length=SHARE       expected length of a completion, of rollout.max_new_tokens  (default: 0.2)
  prompt=TOKENS      expected length of a prompt                                 (default: 200)
  server_gpus=N      GPUs of each server of engine=vllm_server                   (default: 1)
Kinds of GPU:
{fill(", ".join(CARDS), 98, initial_indent="  ", subsequent_indent="  ")}
Exit code 1 if the run does not fit; the last line says what would make it fit.
""",
    settings=Settings,
    overrides=True,
    flags=("--cfg", "--config-dir"),
)


def main(arguments: Arguments[Settings]) -> int:
    """Print memory, work and time of a configuration; nothing is downloaded, no weights are made.

    Raises:
        UsageError: sizes that do not divide, or a model that is not known here.
        EcrlError: it does not fit; the tables are printed all the same.
    """
    config = planned_config(arguments)
    if arguments.show:
        print(as_yaml(config))
        return 0
    # Not before the configuration holds: torch takes seconds, for which a mistake need not wait.
    from rich.console import Console

    from ecrl.estimate.advice import check_fit
    from ecrl.estimate.job import Job
    from ecrl.estimate.report import gains_table, memory_table, notes, work_table
    from ecrl.training.disk import disk_use

    job = Job(config, arguments.settings)
    console = Console(highlight=False)
    console.print(memory_table(job), work_table(job), gains_table(job))
    for line in notes(job):
        console.print(line, soft_wrap=True)
    if (disk := disk_use(config)) is not None:
        console.print(f"Disk: {disk}", soft_wrap=True)
    check_fit(job)
    return 0


def planned_config(arguments: Arguments[Settings]) -> Config:
    """Compose the configuration, with ``gpus`` as devices of one node."""
    gpus = arguments.settings.gpus
    devices = [] if gpus is None else [f"trainer.devices={gpus}", "trainer.num_nodes=1"]
    return build_config([*arguments.overrides, *devices], arguments.config_dir)
