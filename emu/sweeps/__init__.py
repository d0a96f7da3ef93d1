"""Many runs from one command: what each is, where they leave what they find, and who runs them.

Everything that a sweep knows is in its directory, written by whoever runs a run and never rewritten. So it does not matter
which process ran what, or how often the sweep was killed and started again.
"""
