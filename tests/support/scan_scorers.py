"""Run as a program: score one marked text by every scorer; print what was executed of it.

A process of its own, since an audit hook stays for ever.
"""

from __future__ import annotations

import sys
from types import CodeType

from ecrl.envs.reasoning_gym.task_names import TASKS
from ecrl.envs.reasoning_gym.tasks import Task, draw, judge

MARK = "marked_text"
TEXTS = (f"{MARK}", f"[{MARK}]", f"[[{MARK}()]]", f"x + {MARK}(1)", f"({MARK}).real", f'{{"a": {MARK}}}')
executed: list[str] = []


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "exec" and isinstance(arguments[0], CodeType) and MARK in arguments[0].co_names:
        executed.append(task)


task = "the hook itself"
sys.addaudithook(watch)
try:
    eval(MARK)
except NameError:
    assert executed.pop() == task
for task in TASKS:
    if task != "composite":
        entry = draw(Task(task, None, "{}"), 1)
        for text in TEXTS:
            judge(Task(task, None, "{}"), entry, text)
print("executed:", sorted(set(executed)))
