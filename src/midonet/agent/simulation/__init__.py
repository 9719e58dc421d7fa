"""Pure simulation of the virtual network for one packet."""
