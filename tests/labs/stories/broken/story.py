"""A story that can't be told, through no fault of netlib's."""

from __future__ import annotations

from netlib.labs.story import Story


def tell(story: Story) -> None:
    """Builds the same machine twice."""
    story.stage.is_set()
    story.stage.machine("beside")
    story.stage.machine("beside")
