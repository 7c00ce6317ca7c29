"""
What keeps a container awake or wakes it: counters, sources, locks, alarms, and their figures.

Must not know channels and freezers.
"""
