"""What a run trains with, before its first step: the data, the network, the phases, and how the head is found."""
