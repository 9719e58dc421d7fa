"""The host's own network: interfaces, links that the agent makes, routes to peers, probes.

The only package that speaks netlink. Links that the agent makes are recognised by the name
prefix `mn-`, so that a process with no memory can sweep them.
"""
