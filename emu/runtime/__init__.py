"""What feeds the state machines their events, performs their actions, and spends time."""
