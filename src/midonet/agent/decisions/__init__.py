"""From a packet nobody knows to an installed flow program, and its judgement anew."""
