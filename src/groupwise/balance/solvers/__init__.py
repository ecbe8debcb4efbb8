"""The small convex problems of balancing, solved exactly.

Each module opens with its problem, the conditions that an optimum satisfies, and how far from them a solution may be.
All of it is float64 on the CPU and free of absolute constants: rows are scaled to unit length first, so a Gramian may
be multiplied by any number, and its rows may differ by many orders of magnitude. No solver draws or remembers.
"""
