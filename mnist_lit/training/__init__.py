"""How a network learns: steps, callbacks, run folders."""
