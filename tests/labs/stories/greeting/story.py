"""A story with options, which leaves a sandbox if it is told to."""

from __future__ import annotations

from typing import Annotated

from netlib.labs.story import Story

NEEDS = {"sh": "dash"}


def tell(
    story: Story,
    *,
    whom: Annotated[str, "Who is greeted."] = "world",
    times: Annotated[int, "How often."] = 1,
    tidy: Annotated[bool, "Leave nothing."] = True,
) -> None:
    """Greets, makes a sandbox, and waits."""
    story.stage.is_set()
    for _ in range(times):
        story.run(f"echo hello {whom}")
    story.stage.machine("beside")
    story.run("net sandbox create web")
    story.stage.places.append(story.sandbox("web"))
    story.run("env | grep -E 'NETLIB_STATE_DIR|_proxy'", fails=True)
    story.pause("a sandbox was made")
    if tidy:
        story.run("net sandbox rm web")
