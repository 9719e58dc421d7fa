"""Virtual hosts on one machine: namespaces, agents, topology through REST, real traffic.

`midonet demo` is the visible use; the netns tests and the bench build their hosts with the same
parts. Talks to the product as any user does: processes, REST and packets.
"""
