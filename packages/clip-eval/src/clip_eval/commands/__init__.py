"""The sub-commands of `clip-eval`, one module each: `add(commands)` registers it, heavy imports wait for its action."""
