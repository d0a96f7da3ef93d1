"""From a machine that executes to the timing model of one that sleeps: measure its steps, fit, state the error."""
