"""What a cluster can carry, and which cluster to buy: runs in the virtual runtime, in this process, that leave no files."""
