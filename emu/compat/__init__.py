"""Other simulators' behaviour, to compare with their results: each folder a plug-in, which only its files in conf/ name."""
