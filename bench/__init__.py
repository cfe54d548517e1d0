"""Benchmarks of asyncmachine: ``python -m bench`` says what there is to measure.

Every time is given twice, in nanoseconds and in empty Python function calls (E), which
are measured right around it. Nanoseconds tell how long; E tells the same on any machine.
"""
