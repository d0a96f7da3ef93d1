"""The machines and the scheduler of the published Splitwise simulator, rule by rule (SPLITWISE.md §9)."""
