"""Where requests come from: a trace read from a file, or arrivals and lengths drawn from one seed.

Every source is a plain class whose constructor is its configuration and whose `build(seed)` returns a `Workload`.
"""
