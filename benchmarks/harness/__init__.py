"""What every benchmark needs: a network of its own, a receiver, counters of CPU time and memory, results."""
