"""A story that is not true."""

from __future__ import annotations

from netlib.labs.story import Story


def tell(story: Story) -> None:
    """Says that false is true."""
    story.say("All is well:")
    story.run("echo not at all; false")
