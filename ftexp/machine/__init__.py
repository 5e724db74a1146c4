"""What a run stands on: device and precision, processes, cores, memory, random numbers."""
