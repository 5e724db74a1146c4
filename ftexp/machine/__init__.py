"""The machine: device and precision, processes, cores, memory, random number generators."""
