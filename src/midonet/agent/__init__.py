"""The host agent: topology view, simulation, flow programs, datapath, underlay."""
