"""Many hosts: what they tell each other, who is a member, and the agent that keeps up with it."""
