"""
The history: what sleep was worth, hour by hour, in a small file that outlives the service.

Must not know containers and freezers: it is given figures and names.
"""
